"""How to repair what a stage or command finds wrong, added here because only the stages know the commands."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import FetchError
from shardset.errors import CorruptDataError, DamagedFileError, InputError

# DVC trusts and links what is in its cache, so a damaged file would come back from there.
REPAIR_HINT = (
    "To repair a damaged file, delete it together with its link in DVC's cache (`find . -samefile FILE -delete` in the "
    "repository's top folder), then run `dvc repro`, or `dvc pull` where the set was imported."
)

DTYPE_HINT = (
    "Set normalize.dtype to uint8 in params.yaml, which is read as the same values: it takes a quarter of float32, or "
    "no space if normalize.samples_per_shard is that of data/raw. Or free space, or make data/shards a link to a "
    "folder on another disk."
)

# No command that starts the pipeline: after `make repro`, DVC may not be on the PATH.
WAYS_OUT = """What you can do before you run the same command again:
  another mirror   export PIPELINE_SOURCE=https://host/{file_name}
  a local file     export PIPELINE_SOURCE=/path/to/{file_name}, or a folder with the unpacked files
Without a download, `make demo` runs everything on a generated dataset."""


@contextmanager
def repair_hint() -> Iterator[None]:
    """Add REPAIR_HINT to errors about damaged or missing files of a shard set."""
    try:
        yield
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}\n{REPAIR_HINT}") from None


@contextmanager
def corrupt_data_hint(hint: str) -> Iterator[None]:
    """Add a line to CorruptDataError that says what to do, except for damaged files, which have a hint of their own."""
    try:
        yield
    except DamagedFileError:
        raise
    except CorruptDataError as error:
        raise CorruptDataError(f"{error}\n{hint}") from None


@contextmanager
def input_hint(prefix: str = "", suffix: str = "") -> Iterator[None]:
    """Say where an unusable input comes from, and what to do about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}{error}{suffix}") from None


@contextmanager
def source_hint(file_name: str) -> Iterator[None]:
    """Say where else the archive of a known dataset can be taken from, if none of its mirrors could be used."""
    try:
        yield
    except FetchError as error:
        raise FetchError(f"{error}\n{WAYS_OUT.format(file_name=file_name)}") from None
