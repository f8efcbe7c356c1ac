"""Parquet files as Hugging Face's library `datasets` writes them: a column of encoded images, and one of labels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline.sources.images.parquet_layout import plan_splits
from pipeline.sources.images.parquet_rows import ImageRows, open_file, parquet_errors
from shardset.errors import InputError, named_os_errors
from shardset.manifest import UNPRINTABLE, Split
from shardset.models import printable
from shardset.reader import Labels

SUFFIX = ".parquet"
MAGIC = b"PAR1"


class Columns(NamedTuple):
    """The columns that matter, by the metadata of a file, and the names of the classes in the order of the labels."""

    image: str
    label: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ParquetImages:
    """The images of parquet files, by split and in order: names "FILE#ROW", counted from 0, and labels."""

    classes: tuple[str, ...]
    names: dict[Split, list[str]]
    labels: dict[Split, Labels]
    files: ImageRows

    def place(self, _name: str) -> tuple[int, ...]:
        return ()

    def open(self, name: str) -> BinaryIO:
        """Open the encoded image of a row; see `ImageRows.open`."""
        return self.files.open(name)


def is_parquet(path: Path) -> bool:
    """Tell whether a path is a parquet file, also a damaged one."""
    with named_os_errors(path):
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.name.lower().endswith(SUFFIX)


def open_parquet(root: Path, files: Sequence[str]) -> ParquetImages:
    """Open parquet files, given relative to `root`.

    Raises InputError if their names don't say the split, or if they don't hold labelled images of the same classes.
    """
    splits = plan_splits(root, files)
    columns: dict[str, Columns] = {}
    names: dict[Split, list[str]] = {}
    labels: dict[Split, Labels] = {}
    for split, of_split in splits.items():
        parts: dict[str, Labels] = {}
        for name in of_split:
            columns[name], parts[name] = _read_labels(root / name)
        names[split] = [f"{name}#{row}" for name, part in parts.items() for row in range(len(part))]
        labels[split] = np.concatenate([*parts.values()])
    for first, second in pairwise(columns):
        if columns[first] != columns[second]:
            raise InputError(
                f"{root / second}: should have the same columns and classes as {first}: expected "
                f"{_describe(columns[first])}, got {_describe(columns[second])}"
            )
    of_all = next(iter(columns.values()))
    return ParquetImages(of_all.classes, names, labels, ImageRows(root.absolute(), of_all.image))


def _read_labels(path: Path) -> tuple[Columns, Labels]:
    with parquet_errors(path), open_file(path) as file:
        columns = _find_columns(path, file.schema_arrow)
        column = file.read([columns.label], use_threads=False).column(0).cast("int64")
        labels: Labels = column.fill_null(-1).to_numpy()
    wrong = (labels < 0) | (labels >= len(columns.classes))
    if wrong.any():
        row = int(wrong.argmax())
        got = "null" if column[row].as_py() is None else labels[row]
        raise InputError(
            f"{path}, row {row}: {columns.label}: should be an index of a class, 0 to {len(columns.classes) - 1}, got "
            f"{got}. If the labels of this split were never published, remove its files."
        )
    return columns, labels


def _find_columns(path: Path, schema: Any) -> Columns:  # noqa: ANN401 (pyarrow has no types)
    """Find the one column of images and the one of labels by what `datasets` wrote into the metadata."""
    from pyarrow import types

    features = _read_features(path, schema)
    kinds = {name: feature.get("_type") if isinstance(feature, dict) else None for name, feature in features.items()}
    found = {kind: [name for name in kinds if kinds[name] == kind] for kind in ("Image", "ClassLabel")}
    if [len(of_kind) for of_kind in found.values()] != [1, 1]:
        listed = ", ".join(f"{name} ({kind or 'nested'})" for name, kind in kinds.items())
        raise InputError(f"{path}: should have one column Image and one ClassLabel, got {printable(listed, 500)}")
    (image,), (label,) = found.values()
    for name, expected in ((image, "struct<bytes: binary, path: string>"), (label, "int64")):
        if schema.get_field_index(name) < 0:
            raise InputError(f"{path}: {name}: the column is missing, though the metadata list it")
        kind = schema.field(name).type
        is_binary = types.is_struct(kind) and any(
            field.name == "bytes" and (types.is_binary(field.type) or types.is_large_binary(field.type))
            for field in kind
        )
        if not (is_binary if name == image else types.is_integer(kind)):
            raise InputError(f"{path}: {name}: should be of type {expected}, got {printable(str(kind))}")
    classes = features[label].get("names")
    is_valid = isinstance(classes, list) and all(
        isinstance(name, str) and name and not UNPRINTABLE.search(name) for name in classes
    )
    if not is_valid or len({*classes}) < len(classes):
        got = printable(json.dumps(classes))
        raise InputError(f"{path}: {label}: should have distinct printable names of classes in the metadata, got {got}")
    return Columns(image, label, tuple(classes))


def _read_features(path: Path, schema: Any) -> dict[str, Any]:  # noqa: ANN401 (pyarrow has no types)
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        features = None
    if not isinstance(features, dict):
        raise InputError(
            f"{path}: has no metadata of Hugging Face that say which column holds images, got the columns "
            f"{printable(', '.join(schema.names), 500)}. Write it with the library `datasets`."
        )
    return features


def _describe(columns: Columns) -> str:
    return f"{columns.image}, {columns.label} of {printable(', '.join(columns.classes))}"
