"""Parquet files in the layout of Hugging Face: a column of encoded images, and one of labels with their names."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shardset.errors import InputError
from shardset.manifest import Split
from shardset.reader import Labels


@dataclass(frozen=True)
class ParquetImages:
    """The images of parquet files, by split and in order: names "FILE#ROW", and labels."""

    classes: tuple[str, ...]
    names: dict[Split, list[str]]
    labels: dict[Split, Labels]

    def open(self, name: str) -> BinaryIO:
        """Open the encoded image of a row. Raises UnreadableImageError if the row has none."""
        raise NotImplementedError(name)


def find_parquet_files(path: Path) -> list[Path]:
    """Return the parquet files that a source consists of, sorted, or none if it is another kind of source."""
    return [path] if path.suffix == ".parquet" else []


def open_parquet(path: Path, files: list[Path]) -> ParquetImages:
    """Open parquet files. Raises InputError if they have no images, or no labels with class names."""
    raise InputError(f"source {path}: can't be read: {files}")
