import os

import numpy as np
import pytest

from shardset.errors import InputError
from shardset.indices import load_indices


@pytest.fixture
def load(tmp_path):
    """A function that reads a text as a list of samples of a test split of 20."""

    def load(content):
        path = tmp_path / "list.csv"
        path.write_bytes(content.encode())
        return load_indices(path, "test", 20)

    return load


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("index\n3\n19\n0\n", [3, 19, 0]),
        ("index\r\n3\r\n\r\n19", [3, 19]),
        ("\ufeffindex\n3\n", [3]),  # as spreadsheets save it
        ('"index"\n"007"\n', [7]),
        ("label,index,split\ncat,3,test\n", [3]),
        ("index,label\n3\n4,dog,brown\n", [3, 4]),
    ],
)
def test_indices_are_read_in_the_order_of_the_file(content, expected, load):
    indices = load(content)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ", line 1: should name a column 'index', got ''"),
        ("3\n4\n", ", line 1: should name a column 'index', got '3'"),
        ("number;index\n3;4\n", ", line 1: should name a column 'index', got 'number;index'"),
        ("index\n", ": should list at least one sample"),
        ("index\n3\n20\n", ", line 3: index should be an integer from 0 to 19 (test has 20 samples), got '20'"),
        ("index\n-1\n", ", line 2: index should be an integer from 0 to 19 (test has 20 samples), got '-1'"),
        ("index\n3.0\n", ", line 2: index should be an integer from 0 to 19 (test has 20 samples), got '3.0'"),
        ("index\n1_0\n", ", line 2: index should be an integer from 0 to 19 (test has 20 samples), got '1_0'"),
        (
            "index\n\u0663\n",
            ", line 2: index should be an integer from 0 to 19 (test has 20 samples), got '\u0663'",
        ),  # an Arabic digit
        (
            "index\n" + 5000 * "9",
            f", line 2: index should be an integer from 0 to 19 (test has 20 samples), got '{59 * '9'}...",
        ),
        ("label,index\ncat\n", ", line 2: index should be an integer from 0 to 19 (test has 20 samples), got ''"),
        ("index\n3\n4\n03\n", ", line 4: index 03 is repeated"),
        ("split,index\ntest,3\ntrain,4\n", ", line 3: split should be 'test', got 'train'"),
        ('index\n3\n"4\n', ", line 3: not valid CSV: unexpected end of data"),
    ],
)
def test_invalid_list_is_refused_with_its_line(content, message, load, tmp_path):
    with pytest.raises(InputError) as caught:
        load(content)
    assert str(caught.value) == f"{tmp_path / 'list.csv'}{message}"


def test_binary_file_is_refused(tmp_path):
    np.save(tmp_path / "list.npy", [3, 4])
    with pytest.raises(InputError, match=r"list\.npy: should be UTF-8 text: invalid start byte$"):
        load_indices(tmp_path / "list.npy", "test", 20)


def test_missing_list_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv: no such file$"):
        load_indices(str(tmp_path / "absent.csv"), "test", 20)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_list_without_permission_raises_os_error(tmp_path):
    (tmp_path / "list.csv").write_text("index\n3\n")
    (tmp_path / "list.csv").chmod(0)
    with pytest.raises(PermissionError, match=r"list\.csv"):
        load_indices(tmp_path / "list.csv", "test", 20)


def test_folder_raises_os_error(tmp_path):
    with pytest.raises((IsADirectoryError, PermissionError)):  # the latter on Windows
        load_indices(tmp_path, "test", 20)
