import os
from pathlib import Path

import numpy as np
import pytest

from shardset.mapping import map_file

MAPS = Path("/proc/self/maps")


def map_path(path):
    with path.open("rb") as file:
        return map_file(file.fileno(), path.stat().st_size)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 100)
    return path


def test_memory_has_the_bytes_of_the_file(path):
    memory = map_path(path)
    assert (memory.nbytes, memory.readonly) == (25_600, True)
    assert bytes(memory) == path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps mapped files from being deleted")
def test_memory_outlives_the_name_of_the_file(path):
    content, memory = path.read_bytes(), map_path(path)
    path.unlink()
    assert bytes(memory) == content


def test_arrays_of_the_memory_can_not_be_made_writable(path):
    array = np.frombuffer(map_path(path), np.uint8)
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        array.flags.writeable = True


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists the mapped files")
def test_file_is_mapped_as_long_as_an_array_needs_it(path):
    array = np.frombuffer(map_path(path), np.uint8)[5:7]
    assert str(path) in MAPS.read_text()
    assert array.tolist() == [5, 6]
    del array
    assert str(path) not in MAPS.read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows maps such files")
def test_file_that_can_not_be_mapped_raises_os_error(path):
    with path.open("ab") as file, pytest.raises(PermissionError):
        map_file(file.fileno(), path.stat().st_size)
