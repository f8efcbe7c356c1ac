"""How to repair what a stage or command finds wrong, added here because only the stages know the commands."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from shardset.errors import CorruptDataError, InputError

# DVC trusts and links what is in its cache, so a damaged file would come back from there.
REPAIR_HINT = (
    "To repair a damaged file, delete it together with its link in DVC's cache (`find . -samefile FILE -delete` in the "
    "repository's top folder), then run `dvc repro`, or `dvc pull` where the set was imported."
)


@contextmanager
def corrupt_data_hint(hint: str) -> Iterator[None]:
    """Add a line to CorruptDataError that says what to do."""
    try:
        yield
    except CorruptDataError as error:
        raise CorruptDataError(f"{error}\n{hint}") from None


def repair_hint() -> AbstractContextManager[None]:
    """Add REPAIR_HINT to errors about damaged or missing files of a shard set."""
    return corrupt_data_hint(REPAIR_HINT)


@contextmanager
def input_hint(prefix: str = "", suffix: str = "") -> Iterator[None]:
    """Say where an unusable input comes from, and what to do about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}{error}{suffix}") from None
