import gzip
import io
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.containers import Folder, open_container
from shardset.errors import InputError
from tests.helpers.image_files import make_image_folder, make_tar, make_zip

FILES = {
    "train/cat/1.jpg": b"one",
    "train/cat/deep/er/2.jpg": b"two" * 1000,
    "train/d\u00f6g \u2603/3 4.jpg": b"",
    "train/d\u00f6g \u2603/notes.txt": b"text",
    "train/cat/.hidden.jpg": b"hidden",
    "train/.cache/x/5.jpg": b"hidden",
    "__MACOSX/train/cat/._1.jpg": b"fork",
    "train/cat/Thumbs.db": b"thumbs",
    "test/cat/" + "long" * 40 + ".jpg": b"long name",
}


def write_tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def contents_of(container):
    """All that a container holds: files with content, folders, what is ignored and why, problems."""
    listing = container.listing
    files = {}
    for name in listing.files:
        with container.open(name) as file:
            files[name] = file.read()
    return files, {*listing.folders}, listing.ignored, listing.problems


def write_tar(path, folder, prefix="", format=tarfile.PAX_FORMAT, *, with_folders=True):  # noqa: A002
    with tarfile.open(path, "w", format=format) as archive:
        if with_folders:
            archive.add(folder, prefix or ".")
        else:
            for file in folder.rglob("*"):
                if not file.is_dir():
                    archive.add(file, prefix + file.relative_to(folder).as_posix())
    return path


def write_zip(path, folder, prefix="", compression=zipfile.ZIP_STORED, *, with_folders=True):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in folder.rglob("*"):
            if with_folders or not file.is_dir():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", FILES)


PACKERS = {
    "pax": write_tar,
    "gnu": lambda path, folder: write_tar(path, folder, format=tarfile.GNU_FORMAT),
    "no folders": lambda path, folder: write_tar(path, folder, with_folders=False),
    "dot": lambda path, folder: write_tar(path, folder, "./"),
    "leading folder": lambda path, folder: write_tar(path, folder, "my set"),
    "stored": write_zip,
    "deflated": lambda path, folder: write_zip(path, folder, compression=zipfile.ZIP_DEFLATED),
    "bzip2": lambda path, folder: write_zip(path, folder, compression=zipfile.ZIP_BZIP2),
    "lzma": lambda path, folder: write_zip(path, folder, compression=zipfile.ZIP_LZMA),
    "zip without folders": lambda path, folder: write_zip(path, folder, with_folders=False),
    "zip with a leading folder": lambda path, folder: write_zip(path, folder, "my set/"),
    "zip with a dot": lambda path, folder: write_zip(path, folder, "./"),
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_archive_holds_what_its_folder_holds(pack, tree, tmp_path):
    files, *rest = expected = contents_of(Folder(tree))
    assert contents_of(open_container(pack(tmp_path / "archive", tree))) == expected
    assert sorted(files) == sorted(name for name in FILES if not re.search(r"/\.|MACOSX|Thumbs", name))
    assert rest == [
        {"train", "train/cat", "train/cat/deep", "train/cat/deep/er", "train/d\u00f6g \u2603", "test", "test/cat"},
        {
            "train/cat/.hidden.jpg": "hidden",
            "train/.cache": "hidden",
            "__MACOSX": "left by a program",
            "train/cat/Thumbs.db": "left by a program",
        },
        [],
    ]


NAMES = st.sampled_from(["cat", "dog", "Train", "test", ".x", "__MACOSX", "\u00e9", "a b", "1.jpg", "2.PNG", "._3.jpg"])
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=20), max_size=12
).filter(lambda files: not any(name.startswith(f"{other}/") for name in files for other in files))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=TREES, pack=st.sampled_from([*PACKERS]))
@pytest.mark.slow
def test_any_tree_is_the_same_in_an_archive(files, pack, tmp_path):
    for old in tmp_path.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    # Classes next to it keep a lone folder from being taken for the folder that archives often begin with.
    tree = write_tree(tmp_path / "tree", {"x/1.jpg": b"x", "y/1.jpg": b"y"} | files)
    assert contents_of(open_container(PACKERS[pack](tmp_path / "archive", tree))) == contents_of(Folder(tree))


def test_links_are_followed_and_named_by_their_place(tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one", "dog/2.jpg": b"two"})
    (tree / "dog/linked.jpg").symlink_to("../cat/1.jpg")
    (tree / "dog/twice.jpg").symlink_to("linked.jpg")
    os.link(tree / "cat/1.jpg", tree / "dog/hard.jpg")
    expected = contents_of(Folder(tree))
    assert expected[0] == {
        "cat/1.jpg": b"one",
        "dog/2.jpg": b"two",
        "dog/linked.jpg": b"one",
        "dog/twice.jpg": b"one",
        "dog/hard.jpg": b"one",
    }
    assert contents_of(open_container(write_tar(tmp_path / "x.tar", tree))) == expected
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_symlink():
                info = zipfile.ZipInfo(path.relative_to(tree).as_posix())
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, str(path.readlink()))
            else:
                archive.write(path, path.relative_to(tree))
    assert contents_of(open_container(tmp_path / "x.zip")) == expected


def test_link_to_a_folder_is_followed_in_folders_only(tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    (tree / "kitten").symlink_to("cat")
    files, folders, _, problems = contents_of(Folder(tree))
    assert (files, folders, problems) == ({"cat/1.jpg": b"one", "kitten/1.jpg": b"one"}, {"cat", "kitten"}, [])
    (problem,) = open_container(write_tar(tmp_path / "x.tar", tree)).listing.problems
    assert problem.startswith("kitten: a link to a folder or out of the archive, or a broken one; replace links by")


@pytest.mark.parametrize("target", ["..", "../..", "../cat", "."])
def test_link_to_a_containing_folder_is_a_problem(target, tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    (tree / "cat/loop").symlink_to(target)
    problems = Folder(tree).listing.problems
    if target == "../..":  # leads through the parent of the source, and back into it
        assert all(problem.startswith("cat/loop/tree") for problem in problems)
        assert problems
    else:
        assert problems == ["cat/loop: a symbolic link to a folder that contains it; remove it"]


@pytest.mark.parametrize("target", ["nowhere.jpg", "link.jpg", "2.jpg", "/nonexistent/1.jpg"])
def test_broken_link_is_a_problem(target, tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    (tree / "cat/link.jpg").symlink_to(target)
    (tree / "cat/2.jpg").symlink_to("link.jpg")
    problems = Folder(tree).listing.problems
    assert problems == [
        f"cat/{name}: a broken symbolic link; remove it or restore its target" for name in ("2.jpg", "link.jpg")
    ]
    in_tar = open_container(write_tar(tmp_path / "x.tar", tree)).listing.problems
    assert [line.split(":")[0] for line in sorted(in_tar)] == ["cat/2.jpg", "cat/link.jpg"]


def test_pipes_and_sockets_are_left_out_without_waiting(tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    os.mkfifo(tree / "cat/pipe.jpg")
    (tree / "cat/link.jpg").symlink_to("pipe.jpg")
    (tree / "cat/null.jpg").symlink_to("/dev/null")
    reason = "not a regular file"
    expected = {"cat/pipe.jpg": reason, "cat/link.jpg": reason, "cat/null.jpg": reason}
    assert contents_of(Folder(tree)) == ({"cat/1.jpg": b"one"}, {"cat"}, expected, [])
    (tree / "cat/link.jpg").unlink()
    (tree / "cat/null.jpg").unlink()
    assert open_container(write_tar(tmp_path / "x.tar", tree)).listing.ignored == {"cat/pipe.jpg": reason}
    monkeypatch.chdir(tree)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert Folder(tree).listing.ignored["socket.jpg"] == reason
    with pytest.raises(InputError, match="pipe.jpg: neither a file nor a folder$"):
        open_container(tree / "cat/pipe.jpg")


def test_name_that_is_not_utf8_is_a_problem(tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    Path(os.fsdecode(os.fsencode(tree) + b"/cat/\xff.jpg")).touch()
    expected = ["'cat/\\udcff.jpg': the name is not valid UTF-8; rename it"]
    assert Folder(tree).listing.problems == expected
    assert open_container(write_tar(tmp_path / "x.tar", tree)).listing.problems == expected


def test_file_removed_after_listing_is_named(tmp_path):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one"})
    folder = Folder(tree)
    (tree / "cat/1.jpg").unlink()
    with pytest.raises(FileNotFoundError) as raised:
        folder.open("cat/1.jpg")
    assert raised.value.filename == str(tree / "cat/1.jpg")


@pytest.mark.parametrize("name", ["../1.jpg", "/etc/1.jpg", "cat/../../1.jpg", ".."])
def test_name_that_leaves_the_archive_is_a_problem(name, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar, zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in (name, "cat/..2.jpg", "cat/1.jpg"):
            tar.addfile(tarfile.TarInfo(member))
            archive.writestr(member, b"")
    for path in (tmp_path / "x.tar", tmp_path / "x.zip"):
        listing = open_container(path).listing
        assert listing.files == ["cat/1.jpg"]
        assert listing.problems == [f"{os.path.normpath(name)}: leads out of the archive"]


def test_last_of_equal_names_counts(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for content in (b"old", b"newer"):
            info = tarfile.TarInfo("cat/1.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert contents_of(open_container(tmp_path / "x.tar"))[0] == {"cat/1.jpg": b"newer"}


def test_single_class_or_split_is_not_a_leading_folder(tmp_path):
    for files in ({"cat/1.jpg": b""}, {"train/cat/1.jpg": b"", "train/dog/1.jpg": b""}):
        tree = write_tree(tmp_path / str(len(files)), files)
        assert sorted(open_container(write_tar(tmp_path / "x.tar", tree)).listing.files) == sorted(files)


def test_tar_truncated_at_any_block_is_refused(tree, tmp_path):
    path = write_tar(tmp_path / "x.tar", tree)
    content = path.read_bytes()
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    for length in [*range(512, end + 1, 512), *range(700, end, 5000)]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"not a readable .tar: (incomplete|damaged|.*unexpected end|.*truncated)"):
            open_container(path)
    path.write_bytes(content[: end + 1024])
    assert contents_of(open_container(path)) == contents_of(Folder(tree))


def test_tarfile_reads_a_damaged_archive_to_the_damage(tree, tmp_path):
    """Where tarfile just stops, images would be lost without a word."""
    path = write_tar(tmp_path / "x.tar", tree)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
        num_members = len(archive.getmembers())
    content = bytearray(path.read_bytes())
    content[last : last + 100] = b"\xaa" * 100
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) < num_members
    with pytest.raises(InputError, match=r"damaged at byte [\d,]+, or several archives joined; pack it again$"):
        open_container(path)


def test_joined_tars_are_refused(tree, tmp_path):
    path = write_tar(tmp_path / "x.tar", tree)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match="several archives joined"):
        open_container(path)


def test_sparse_member_is_a_problem(tmp_path):
    if not shutil.which("tar"):
        pytest.skip("no tar")
    tree = write_tree(tmp_path / "tree", {"cat/1.bmp": b""})
    os.truncate(tree / "cat/1.bmp", 10_000_000)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "x.tar", "-C", tree, "."], check=True)
    listing = open_container(tmp_path / "x.tar").listing
    assert listing.problems == ["cat/1.bmp: stored as a sparse file; pack it again without --sparse"]


def test_compressed_tar_is_refused_with_the_command(tree, tmp_path):
    path = write_tar(tmp_path / "x.tar", tree)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="compressed; .* decompress it first, for example with `gunzip x.tar.gz`$"):
        open_container(tmp_path / "x.tar.gz")


def test_tar_with_a_zip_at_its_end_is_a_tar(tmp_path):
    write_zip(tmp_path / "inner.zip", write_tree(tmp_path / "inner", {"dog/2.jpg": b"two"}))
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"one", "cat/z.zip": (tmp_path / "inner.zip").read_bytes()})
    path = write_tar(tmp_path / "x.tar", tree, with_folders=False)
    assert zipfile.is_zipfile(path)
    assert "cat/1.jpg" in open_container(path).listing.files


@pytest.mark.parametrize("name", ["x", "x.zip", "x.jpg", "x.parquet2"])
def test_other_file_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no archive" * 100)
    with pytest.raises(
        InputError, match=f"^source {tmp_path}/{name}: (should be a folder, a .tar|not a readable .zip)"
    ):
        open_container(tmp_path / name)


def test_missing_source_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name in ("nothing", "file/below", "null\0"):
        with pytest.raises(InputError, match="no such file or folder$"):
            open_container(tmp_path / name)


def test_truncated_zip_is_refused(tree, tmp_path):
    path = write_zip(tmp_path / "x.zip", tree)
    content = path.read_bytes()
    for length in range(4, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="^source .*x.zip: not a readable .zip: "):
            open_container(path)


def test_damaged_and_encrypted_members_are_unreadable(tmp_path):
    path = write_zip(tmp_path / "x.zip", write_tree(tmp_path / "tree", {"cat/1.jpg": b"content"}), with_folders=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"content", b"CONTENT"))
    container = open_container(path)
    with container.open("cat/1.jpg") as file, pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        file.read()
    at = content.index(b"PK\x01\x02")
    path.write_bytes(content[: at + 8] + bytes([content[at + 8] | 1]) + content[at + 9 :])
    with pytest.raises(UnreadableImageError, match="^encrypted$"):
        open_container(path).open("cat/1.jpg")
    path.write_bytes(content[: at + 10] + b"\x09\0" + content[at + 12 :])  # Deflate64
    with pytest.raises(UnreadableImageError, match="^damaged or not supported: That compression method"):
        open_container(path).open("cat/1.jpg")


def test_zip64_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, archive.open("cat/1.jpg", "w", force_zip64=True) as file:
        file.write(b"one")
    assert contents_of(open_container(tmp_path / "x.zip"))[0] == {"cat/1.jpg": b"one"}


@pytest.mark.parametrize(
    ("system", "name", "expected"),
    [
        (0, b"cat\\1.jpg", "cat/1.jpg"),  # some programs on Windows
        (3, b"cat\\1.jpg", "cat\\1.jpg"),
        (3, "d\u00f6g/1.jpg".encode(), "d\u00f6g/1.jpg"),  # macOS, which doesn't flag UTF-8
        (0, "d\u00f6g/1.jpg".encode("cp437"), "d\u00f6g/1.jpg"),
    ],
)
def test_zip_names_of_other_systems_are_read(system, name, expected, tmp_path):
    placeholder = "x" * len(name)
    info = zipfile.ZipInfo(placeholder)
    info.create_system = system
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"one")
    path = tmp_path / "x.zip"
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
    assert contents_of(open_container(path))[0] == {expected: b"one"}


@pytest.mark.slow
@pytest.mark.parametrize("pack", [write_tar, write_zip])
def test_damage_anywhere_raises_nothing_else(pack, tree, tmp_path):
    path = pack(tmp_path / "archive", tree)
    content = path.read_bytes()
    chance = random.Random(0)
    expected = contents_of(Folder(tree))
    num_refused = 0
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 3, 30])):
            damaged[chance.randrange(len(content))] = chance.choice([0, 255, chance.randrange(256)])
        path.write_bytes(damaged)
        try:
            container = open_container(path)
            for name in container.listing.files:
                with container.open(name) as file:
                    file.read()
        except (InputError, zipfile.BadZipFile):
            num_refused += 1
    assert num_refused > 100
    path.write_bytes(content)
    assert contents_of(open_container(path)) == expected


def test_part_of_an_archive_seeks_as_a_file_does(tmp_path):
    content = bytes(range(100))
    container = open_container(write_tar(tmp_path / "x.tar", write_tree(tmp_path / "tree", {"cat/1.jpg": content})))
    with container.open("cat/1.jpg") as file:
        assert (file.seek(90), file.read(5), file.tell()) == (90, content[90:95], 95)
        assert (file.seek(-10, io.SEEK_END), file.read()) == (90, content[90:])
        assert (file.seek(200), file.read(10)) == (200, b"")
        assert (file.seek(3), file.seek(4, io.SEEK_CUR), file.read(1)) == (3, 7, content[7:8])
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)


@pytest.mark.parametrize("pack", [make_tar, make_zip])
def test_archive_that_changed_since_it_was_listed_is_named(pack, tmp_path):
    path = pack(make_image_folder(tmp_path / "pictures"), tmp_path / "archive")
    container = open_container(path)
    name = container.listing.files[0]
    with container.open(name) as file:
        assert file.read()
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"archive: changed since it was listed: expected [0-9,]+ bytes, got [0-9,]+"):
        container.open(name)
