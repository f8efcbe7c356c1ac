"""Archives and pickles made to do harm, by someone who could have their hashes pinned."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from pipeline.plain_pickle import read_plain_pickle

from pipeline.sources.registry import DATASETS
from pipeline.stages.download import download_dataset
from shardset.errors import CorruptDataError, InputError
from shardset.shards import verify_shards
from tests.helpers.cifar_format import BASE_FOLDER, dump_as_python2


@dataclass(frozen=True)
class Runs:
    """What a pickle of it does when it is loaded by pickle.load."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


def member(name, content=b"", **settings):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in settings.items():
        setattr(info, key, value)
    return info, content


def pack(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def good(tiny):
    return [member(f"{BASE_FOLDER}/{name}", content) for name, content in tiny.files.items()]


@pytest.fixture
def download(tiny, tmp_path, monkeypatch):
    """Run the stage on an archive, or on files, whose hashes are the pinned ones, and see that nothing else is made."""

    def run(archive=None, files=()):
        hostile = replace(tiny, files=tiny.files | dict(files))
        hostile = replace(
            hostile, archive=archive or pack(*[member(f"{BASE_FOLDER}/{n}", c) for n, c in hostile.files.items()])
        )
        folder = tmp_path / hashlib.sha256(hostile.archive).hexdigest()
        folder.mkdir()
        hostile.install_reader(folder)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "tiny_reader", raising=False)
        monkeypatch.setitem(DATASETS, "tiny", hostile.facts())
        archive_path = folder / "source.tar.gz"
        archive_path.write_bytes(hostile.archive)
        before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
        try:
            download_dataset("tiny", folder / "raw", folder / "archives", str(archive_path), lambda done, total: None)
        finally:
            after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
            made = {path for path in after - before if (folder / "raw") not in (path, *path.parents)}
            assert made == set()
        return verify_shards(folder / "raw")

    return run


def test_members_that_lead_out_of_the_archive_are_left_where_they_are(download, good, tmp_path):
    outside = str(tmp_path / "outside")
    link = {"type": tarfile.SYMTYPE, "linkname": outside}
    shards = download(
        pack(
            member(outside, b"absolute"),
            member("../outside", b"above"),
            member(f"{BASE_FOLDER}/../../../../outside", b"further above"),
            member("folder", **link),
            member("folder/file", b"through a link"),
            member("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
            member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("disk", type=tarfile.BLKTYPE, devmajor=8),
            member("pipe", type=tarfile.FIFOTYPE),
            *good,
        )
    )
    assert shards.manifest.splits["train"].samples == 100


@pytest.mark.parametrize(
    "settings",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "data_batch_1"},
        {"type": tarfile.LNKTYPE, "linkname": f"{BASE_FOLDER}/data_batch_1"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
    ],
)
def test_a_file_that_is_none_is_missing(settings, download, good):
    with pytest.raises(CorruptDataError, match="lacks data_batch_2"):
        download(pack(good[0], member(f"{BASE_FOLDER}/data_batch_2", **settings), *good[2:]))


def test_a_file_that_is_sparse_and_claims_terabytes_is_not_read(download, good):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10**13)}
    info, content = member(f"{BASE_FOLDER}/data_batch_2", b"0\n".ljust(512, b"\0"), pax_headers=headers)
    with pytest.raises(CorruptDataError, match="lacks data_batch_2"):
        download(pack(good[0], (info, content), *good[2:]))


def test_of_two_files_of_one_name_the_last_is_compared_with_its_hash(download, good):
    with pytest.raises(InputError, match="data_batch_1: expected MD5"):
        download(pack(*good, member(f"{BASE_FOLDER}/data_batch_1", b"another")))


def test_an_archive_that_unpacks_to_far_more_than_it_should_is_refused_in_bounded_time_and_memory(download):
    zeros = gzip.compress(bytes(10_000_000), 9)  # 10 kB
    start = time.process_time()
    with pytest.raises(CorruptDataError, match="unpacks to more than"):
        download(zeros * 1000)  # 10 GB
    assert time.process_time() - start < 5


def header_with_size(size):
    header = bytearray(tarfile.TarInfo("x").tobuf())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def compress(content):
    """Compress to a file that may unpack to so much: zeros after the end of gzip's data are allowed."""
    return gzip.compress(content) + bytes(len(content))


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not gzip",
        compress(b""),
        compress(b"not tar" * 1000),
        gzip.compress(os.urandom(5000))[:-9],
        gzip.compress(os.urandom(5000))[:-4] + b"\0\0\0\0",
        compress(header_with_size(b"\xff" * 12) * 10),
        compress(header_with_size(b"\x80" + b"\xff" * 11)),
        # -512 bytes, which lead tarfile back to the header before, in a circle.
        compress(tarfile.TarInfo("y").tobuf() + header_with_size(b"\xff" * 10 + b"\xfe\x00") * 10),
        pack(*[member(f"file {index}", os.urandom(500)) for index in range(2000)]),
    ],
    ids=range(10),
)
def test_an_archive_that_can_not_be_read_is_named_at_once(archive, download):
    start = time.process_time()
    with pytest.raises(CorruptDataError, match="source.tar.gz: "):
        download(archive or b"\n")
    assert time.process_time() - start < 5


def test_a_pickle_is_not_executed_though_its_hash_is_the_pinned_one(download, tmp_path):
    evidence = tmp_path / "evidence"
    content = pickle.dumps(Runs(str(evidence)), protocol=2)
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        with pytest.raises(CorruptDataError, match=name):
            download(files={name: content})
        assert not evidence.exists()
    pickle.loads(content)
    assert evidence.exists()  # it would have been


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"(i__main__\nx\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cos\nsystem\n)\x81.",
        b"Pidentifier\n.",
        b"\x82\x01.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # a bytearray of 9 EB
        b"]r\xff\xff\xff\xff.",  # a memo of 4 billion places, of which one is used
        b"(" * 20_000 + b"t" * 20_000 + b"K\x01s.",
        b"}" + b")" + b"\x85" * 20_000 + b"K\x01s.",  # a key whose hash needs as deep a stack
        b"\x80\x02}(U\x01a" + b"K\x01" * 3 + b"u.",
    ],
)
def test_a_pickle_of_anything_but_plain_data_is_refused_at_once(content):
    start = time.process_time()
    try:
        read = read_plain_pickle(content)
    except ValueError:
        pass
    else:
        assert read == []
    assert time.process_time() - start < 1


def test_every_pickle_that_is_cut_is_refused(tiny):
    content = tiny.files["batches.meta"]
    for length in range(len(content)):
        with pytest.raises(ValueError):  # noqa: PT011
            read_plain_pickle(content[:length])
    batch = tiny.files["data_batch_1"]
    for length in range(0, len(batch), 997):
        with pytest.raises(ValueError):  # noqa: PT011
            read_plain_pickle(batch[:length])


GOOD = {"labels": [1] * 20, "data": np.zeros((20, 3072), np.uint8)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": np.zeros((20, 3071), np.uint8)}, "shape"),
        ({"data": np.zeros((19, 3072), np.uint8)}, "labels should be 19"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "shape"),
        ({"data": np.zeros((20, 3, 1024), np.uint8)}, "two dimensions"),
        ({"data": np.zeros((20, 3072), np.int8)}, "uint8"),
        ({"data": np.zeros((20, 384), np.float64)}, "uint8"),
        ({"data": np.asfortranarray(np.zeros((20, 3072), np.uint8))}, "C order"),
        ({"data": [[0] * 3072] * 20}, "an array"),
        ({"data": "x"}, "an array"),
        ({"labels": [1] * 19}, "labels should be 20"),
        ({"labels": [1] * 19 + [10]}, "labels should be 20"),
        ({"labels": [1] * 19 + [-1]}, "labels should be 20"),
        ({"labels": [1] * 19 + [2**31 - 1]}, "labels should be 20"),
        ({"labels": [1] * 19 + [True]}, "labels should be 20"),
        ({"labels": [1] * 19 + ["1"]}, "labels should be 20"),
        ({"labels": [1] * 19 + [None]}, "labels should be 20"),
        ({"labels": "1" * 20}, "a list as labels"),
    ],
)
def test_arrays_and_labels_that_are_not_the_format_s_are_named(changes, reason, download):
    with pytest.raises(CorruptDataError, match=f"data_batch_2: .*{reason}"):
        download(files={"data_batch_2": dump_as_python2(GOOD | changes)})


def test_a_batch_that_is_right_but_another_is_found_by_the_hash_of_the_content(download):
    with pytest.raises(CorruptDataError, match="expected the decoded images and labels to have SHA-256"):
        download(files={"data_batch_2": dump_as_python2(GOOD)})


@pytest.mark.parametrize("names", [None, [], ["a", 1], "ab", {"a": 1, "b": 2}])
def test_class_names_that_are_none_are_named(names, download):
    with pytest.raises(CorruptDataError, match="batches.meta: should have the names"):
        download(files={"batches.meta": dump_as_python2({"label_names": names, "num_vis": 3072})})


def test_an_array_whose_state_lies_about_its_size_is_named(download):
    content = dump_as_python2(GOOD)
    size = struct.pack("<h", 3072)
    assert content.count(b"M" + size) == 1
    with pytest.raises(CorruptDataError, match="data should have shape"):
        download(files={"data_batch_2": content.replace(b"M" + size, b"M\xff\xff")})
