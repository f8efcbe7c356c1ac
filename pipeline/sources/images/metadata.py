"""metadata.csv and metadata.jsonl: the class, and optionally the split, of each image."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from posixpath import dirname, join, normpath
from typing import Any, BinaryIO

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.decode import decoder_errors
from pipeline.sources.images.layout import METADATA_NAMES, SPLIT_NAMES, MetadataRow, split_of
from shardset.errors import InputError
from shardset.models import printable

REQUIRED = ("file_name", "label")


def find_metadata(files: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Find the metadata files: one at the top, or one in the folder of each split. Raises InputError for others."""
    found: dict[str, str] = {}
    for name in sorted(files):
        folder, _, base = name.rpartition("/")
        if base in METADATA_NAMES and (not folder or split_of(folder)):
            if folder in found:
                raise InputError(f"{found[folder]}, {name}: two metadata files in one folder; remove one")
            found[folder] = name
    if "" in found and len(found) > 1:
        raise InputError(f"{', '.join(found.values())}: metadata at the top and in folders of splits; keep one kind")
    if found and "" not in found and (lacking := [name for name in folders if split_of(name) and name not in found]):
        raise InputError(f"{', '.join(lacking)}: should have a metadata file too, because {next(iter(found))} has one")
    return list(found.values())


def read_metadata(name: str, open_file: Callable[[str], BinaryIO]) -> Iterator[MetadataRow]:
    """Read a metadata file: `file_name`, relative to the file, `label`, and optionally `split`.

    Other columns are ignored. Raises InputError, which names the line.
    """
    try:
        with decoder_errors(), open_file(name) as file:
            content = file.read()
    except UnreadableImageError as error:
        raise InputError(f"{name}: {error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: should be UTF-8 text: {error.reason}") from None
    records = _read_csv(name, text) if name.endswith(".csv") else _read_jsonl(name, text)
    return (_make_row(name, where, record) for where, record in records)


def _read_csv(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if lacking := [key for key in REQUIRED if key not in (rows.fieldnames or ())]:
            raise InputError(
                f"{name}, line 1: should name the columns file_name and label, separated by commas, but "
                f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
            )
        for record in rows:
            yield f"{name}, line {rows.line_num}", record
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.reader.line_num}: not valid CSV: {error}") from None


def _read_jsonl(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, because texts in JSON may contain U+2028
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: not valid JSON: {printable(line)}") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: should be a JSON object, got {printable(line)}")
        yield where, record


def _make_row(name: str, where: str, record: dict[str, Any]) -> MetadataRow:
    for key in REQUIRED:
        value = record.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise InputError(f"{where}: {key}: should be a text or a whole number, got {printable(json.dumps(value))}")
    split = record.get("split")
    if split not in (None, "") and (not isinstance(split, str) or not split_of(split)):
        allowed = ", ".join(SPLIT_NAMES)
        raise InputError(f"{where}: split: should be one of {allowed}, got {printable(json.dumps(split))}")
    path = normpath(join(dirname(name), str(record["file_name"])))
    return MetadataRow(path, str(record["label"]), split_of(split) if split else None, where)
