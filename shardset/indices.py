"""Lists of samples: CSV files with a column `index`, such as test_without_leaks.csv of the audit."""

import csv
import io
import re
from collections.abc import Container, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shardset.errors import InputError, named_os_errors
from shardset.manifest import Split
from shardset.models import printable


def load_indices(path: str | PathLike[str], split: Split, num_samples: int) -> NDArray[np.int64]:
    """Read the column `index` of a CSV: different indices of a split of `num_samples`, (n,) int64, in file order.

    A column `split`, if there is one, has to name the split in each row. Other columns are ignored. Raises InputError,
    which names the line, also if an index is repeated or there is none.
    """
    path = Path(path)
    rows = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    indices: dict[int, None] = {}
    try:
        if "index" not in (columns := rows.fieldnames or ()):
            raise InputError(f"{path}, line 1: should name a column 'index', got {printable(repr(','.join(columns)))}")
        for row in rows:
            if problem := _find_problem(row, split, num_samples, indices):
                raise InputError(f"{path}, line {rows.line_num}: {problem}")
            indices[int(row["index"])] = None
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.reader.line_num}: not valid CSV: {error}") from None
    if not indices:
        raise InputError(f"{path}: should list at least one sample")
    return np.fromiter(indices, np.int64)


def _read_text(path: Path) -> str:
    try:
        with named_os_errors(path):
            return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: should be UTF-8 text: {error.reason}") from None


def _find_problem(row: Mapping[str, str | None], split: Split, num_samples: int, earlier: Container[int]) -> str | None:
    if row.get("split", split) != split:
        return f"split should be {split!r}, got {printable(repr(row['split']))}"
    value = row["index"] or ""
    if not re.fullmatch("[0-9]{1,18}", value) or int(value) >= num_samples:
        allowed = f"from 0 to {num_samples - 1:,} ({split} has {num_samples:,} samples)"
        return f"index should be an integer {allowed}, got {printable(repr(value))}"
    return f"index {value} is repeated" if int(value) in earlier else None
