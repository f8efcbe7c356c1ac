import io

import numpy as np
import pytest

from shardset.npy import little_endian, npy_header


def test_header_is_the_same_on_every_machine():
    text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2000,), }"
    assert npy_header("int64", (2000,)) == b"\x93NUMPY\x01\x00v\x00" + text + b" " * (117 - len(text)) + b"\n"


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(7,), (10_000, 3, 32, 32), (0, 1, 1, 1)])
def test_header_is_what_numpy_writes(dtype, shape):
    file = io.BytesIO()
    np.save(file, np.empty(shape, little_endian(dtype)))
    assert file.getvalue().startswith(npy_header(dtype, shape))
    assert len(npy_header(dtype, shape)) + np.empty(shape, dtype).nbytes == len(file.getvalue())


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", "<f4"), ("float16", "<f2"), ("int64", "<i8"), ("uint8", "|u1")]
)
def test_values_are_stored_little_endian(dtype, stored):
    assert np.lib.format.dtype_to_descr(little_endian(dtype)) == stored
