"""The layout of the .npy files: little-endian, C order, format 1.0, the same bytes on every machine."""

import io
from functools import cache
from typing import Any

import numpy as np


def little_endian(dtype: str) -> np.dtype[Any]:
    """Return the dtype as stored on disk, "<f4" for float32, on every machine."""
    return np.dtype(dtype).newbyteorder("<")


@cache  # numpy takes as long as reading a small shard
def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes that precede the array in an .npy file."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(little_endian(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()
