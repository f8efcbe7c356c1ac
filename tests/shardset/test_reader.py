import errno
import os
import pickle
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from shardset.manifest import SetFile
from shardset.reader import ShardReader
from shardset.shards import open_shards, verify_shards


@contextmanager
def open_files_limited(limit):
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_too_many_open_files_names_the_limit_and_the_remedy(tiny_raw):
    shards = open_shards(tiny_raw)
    message = "Too many open files: the limit is 1; `ulimit -n NUMBER` raises it up to "
    for read in (shards.verify, lambda: shards.labels("test"), lambda: open_shards(tiny_raw)):
        with open_files_limited(1), pytest.raises(OSError, match=message) as raised:
            read()
        assert raised.value.errno == errno.EMFILE
        assert raised.value.filename.startswith(str(tiny_raw))
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # as a worker sends it


def test_mapped_shards_are_not_open_files(tiny_raw):
    shards = open_shards(tiny_raw)
    shard = shards.shards("test")[0]
    with Path(os.devnull).open() as file:
        limit = file.fileno() + 20
    with open_files_limited(limit):
        mapped = [shards.images(shard) for _ in range(50)]
    assert all(np.array_equal(images, mapped[0]) for images in mapped)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can't be read")
def test_failing_disk_is_not_reported_as_corrupt(tmp_path):
    for name in ("manifest.json", "images.npy", "labels.npy"):
        (tmp_path / name).symlink_to("/proc/self/mem")  # opens, but reading at 0 gives EIO
    images, labels = (SetFile(path=name, bytes=0, sha256="0" * 64) for name in ("images.npy", "labels.npy"))
    reader = ShardReader(tmp_path, "uint8", (1, 1, 1))
    reads = {
        "manifest.json": lambda: open_shards(tmp_path),
        "images.npy": lambda: reader.verify_file(images),
        "labels.npy": lambda: reader.verify_file(labels),
    }
    for name, read in reads.items():
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as raised:
            read()
        assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path / name))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["manifest.json", "test/labels-00000-of-00001.npy", "test"])
def test_path_without_permission_is_not_reported_as_corrupt(name, set_copy):
    mode = (set_copy / name).stat().st_mode
    (set_copy / name).chmod(0)
    try:
        with pytest.raises(PermissionError, match=name):
            verify_shards(set_copy)
    finally:
        (set_copy / name).chmod(mode)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unlisted_folder_without_permission_is_named(set_copy):
    (set_copy / "other").mkdir(mode=0)
    try:
        with pytest.raises(PermissionError, match="other"):
            verify_shards(set_copy)
    finally:
        (set_copy / "other").chmod(0o700)
