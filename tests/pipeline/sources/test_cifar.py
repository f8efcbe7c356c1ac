import errno
import io
import os
import pickle
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.sources.cifar import CifarSource, decode, read_archive, read_folder
from shardset.errors import CorruptDataError, InputError
from tests.helpers.cifar_format import (
    BASE_FOLDER,
    CLASSES,
    TRAIN_FILES,
    dump_as_python2,
    make_archive,
    make_tiny_cifar100,
)

SOURCE = Path("the source")


@dataclass(frozen=True)
class CreatesFolder:
    """An object whose pickle creates a folder when it is loaded by pickle.load."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


def files_of(dataset):
    return dataset.facts().archive.files


def read_split(samples, split, start=0, stop=None):
    """Images, (N, C, H, W), and labels."""
    stop = samples.num_samples[split] if stop is None else stop
    blocks = samples.reader.blocks(split, start, stop, map)
    return np.concatenate([pixels for pixels, _ in blocks]), samples.reader.labels(split, start, stop)


def assert_decoded(dataset, samples):
    assert samples.classes == CLASSES
    assert list(samples.num_samples) == ["train", "test"]
    for split, (expected_images, expected_labels) in (("train", dataset.train), ("test", dataset.test)):
        images, labels = read_split(samples, split)
        assert (images.dtype, labels.dtype) == ("uint8", "int64")
        assert images.shape == expected_images.shape
        assert images.tobytes() == expected_images.tobytes()
        assert labels.tobytes() == expected_labels.tobytes()


def test_archive_is_decoded(tiny, tmp_path):
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(tiny.archive)
    assert_decoded(tiny, CifarSource(path, files_of(tiny)).store(tmp_path / "work"))
    assert {*tmp_path.iterdir()} == {path, tmp_path / "work"}
    assert {path.suffix for path in (tmp_path / "work").iterdir()} == {".npy"}  # no pickles were unpacked


def test_any_range_of_samples_is_read(tiny, tmp_path):
    samples = CifarSource(tiny.write_files(tmp_path / "folder"), files_of(tiny)).store(tmp_path / "work")
    for start, stop in ((0, 1), (19, 21), (15, 67), (60, 100), (99, 100)):
        images, labels = read_split(samples, "train", start, stop)
        assert images.tobytes() == tiny.train[0][start:stop].tobytes()
        assert labels.tobytes() == tiny.train[1][start:stop].tobytes()


@pytest.mark.parametrize("name", ["", BASE_FOLDER])
def test_folder_is_decoded(name, tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder") / name
    assert_decoded(tiny, CifarSource(folder, files_of(tiny)).store(tmp_path / "work"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_cifar100_is_decoded_as_by_torchvision(kind, tmp_path):
    from torchvision.datasets import CIFAR100

    files, batches = make_tiny_cifar100()
    (tmp_path / "cifar-100-python").mkdir()
    for name, content in files.items():
        (tmp_path / "cifar-100-python" / name).write_bytes(content)
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(make_archive({f"cifar-100-python/{name}": content for name, content in files.items()}))
    samples = CifarSource(path if kind == "archive" else tmp_path, batches).store(tmp_path / "work")

    class Tiny(CIFAR100):
        train_list, test_list = ([*batches.batches[split].items()] for split in ("train", "test"))
        meta = CIFAR100.meta | {"md5": batches.meta[1]}

    for split in ("train", "test"):
        expected = Tiny(tmp_path, train=split == "train")
        assert len(expected) == 10
        images, labels = read_split(samples, split)
        assert np.array_equal(images, [np.moveaxis(np.asarray(image), 2, 0) for image, _ in expected])
        assert labels.tolist() == [label for _, label in expected]
        assert samples.classes == tuple(expected.classes)


@pytest.mark.parametrize("name", [*TRAIN_FILES, "test_batch", "batches.meta"])
def test_file_with_flipped_bit_is_named(name, tiny, tmp_path):
    content = bytearray(tiny.files[name])
    content[len(content) // 2] ^= 1
    with pytest.raises(InputError, match=f"the source: {name}: expected MD5 .* it is not the published file"):
        decode((tiny.files | {name: bytes(content)}).items(), files_of(tiny), SOURCE, tmp_path / "work")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_file_with_wrong_hash_is_not_unpickled(name, tiny, tmp_path):
    created = tmp_path / "created"
    content = pickle.dumps(CreatesFolder(str(created)), protocol=2)
    with pytest.raises(InputError, match=f"{name}: expected MD5"):
        decode((tiny.files | {name: content}).items(), files_of(tiny), SOURCE, tmp_path / "work")
    assert not created.exists()


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_pickled_function_is_refused_despite_its_hash(name, tiny, tmp_path):
    created = tmp_path / "created"
    content = pickle.dumps(CreatesFolder(str(created)), protocol=2)
    hostile = replace(tiny, files=tiny.files | {name: content})
    with pytest.raises(pickle.UnpicklingError, match=f"{os.mkdir.__module__}.mkdir is not part of CIFAR's format"):
        decode(hostile.files.items(), files_of(hostile), SOURCE, tmp_path / "work")
    assert not created.exists()
    pickle.loads(content)
    assert created.exists()  # so the pickle would have done harm


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cos\nsystem\n)\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        b"cnumpy\nload\n(V/etc/passwd\ntR.",
    ],
)
def test_every_way_to_name_a_function_is_refused(content, tiny, tmp_path):
    hostile = replace(tiny, files=tiny.files | {"data_batch_1": content})
    with pytest.raises(pickle.UnpicklingError, match="is not part of CIFAR's format"):
        decode(hostile.files.items(), files_of(hostile), SOURCE, tmp_path / "work")


def test_file_missing_from_folder_is_named(tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder")
    (folder / BASE_FOLDER / "data_batch_3").unlink()
    with pytest.raises(InputError, match=f"{BASE_FOLDER}/data_batch_3: missing: the source should hold {BASE_FOLDER}/"):
        [*read_folder(folder, files_of(tiny))]
    with pytest.raises(InputError, match="data_batch_1: missing"):
        [*read_folder(tmp_path, files_of(tiny))]


@pytest.mark.parametrize("kind", [None, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_file_missing_from_archive_is_named(kind, tiny, tmp_path):
    path = tmp_path / "tiny.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in tiny.files.items():
            info = tarfile.TarInfo(f"{BASE_FOLDER}/{name}")
            if name == "data_batch_2":
                if kind:
                    info.type = kind
                    tar.addfile(info)
                continue
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(CorruptDataError, match=f"{path}: not a readable archive: it lacks data_batch_2"):
        [*read_archive(path, files_of(tiny))]


def test_other_members_of_archive_are_ignored(tiny, tmp_path):
    members = {f"{BASE_FOLDER}/{name}": content for name, content in tiny.files.items()}
    other = dict.fromkeys(
        (str(tmp_path / "outside"), "../outside", f"{BASE_FOLDER}/../outside", "data_batch_1", f"x/{BASE_FOLDER}/x"),
        dump_as_python2({}),
    )
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(make_archive(members | other))
    assert dict(read_archive(path, files_of(tiny))) == tiny.files
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "garbled"])
def test_unreadable_archive_is_named(damage, tiny, tmp_path):
    content = {
        "empty": b"",
        "text": b"<html>Please log in</html>",
        "cut": tiny.archive[: len(tiny.archive) // 2],
        "garbled": tiny.archive[:30] + b"\xff" * 30 + tiny.archive[60:],
    }[damage]
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=f"{path}: not a readable archive"):
        [*read_archive(path, files_of(tiny))]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can't be read")
def test_failing_disk_is_not_reported_as_a_bad_archive(tiny, tmp_path):
    path = tmp_path / "tiny.tar.gz"
    path.symlink_to("/proc/self/mem")  # opens, but reading at 0 gives EIO
    folder = tiny.write_files(tmp_path / "folder") / BASE_FOLDER
    (folder / "data_batch_2").unlink()
    (folder / "data_batch_2").symlink_to("/proc/self/mem")
    for read, name in (
        (lambda: [*read_archive(path, files_of(tiny))], path),
        (lambda: [*read_folder(folder, files_of(tiny))], folder / "data_batch_2"),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as raised:
            read()
        assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(name))
