"""The formats, by the names that the command line and the extras have for them."""

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardset.errors import InputError

if TYPE_CHECKING:
    from pipeline.export.samples import Pixels

# Writes all files of an export into an empty folder, given the module of the library whose writer it uses.
WriteExport = Callable[["Pixels", Path, Any], None]


class Format(StrEnum):
    """A format, by the name of the extra that has what writes it."""

    parquet = "parquet"
    webdataset = "webdataset"
    mds = "mds"


WRITERS = {Format.parquet: "pyarrow.parquet", Format.webdataset: "webdataset", Format.mds: "streaming"}


def import_library(target: Format) -> Any:  # noqa: ANN401 (a module)
    """Import the library whose writer a format needs. Raises InputError, which names the extra, if it is missing."""
    name = WRITERS[target]
    try:
        return import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise InputError(
            f"--format {target}: needs {package}: pip install --constraint constraints.txt -e '.[{target}]'"
        ) from None


def find_writer(target: Format) -> WriteExport:
    """Return the function that writes a format."""
    writer: WriteExport = import_module(f"pipeline.export.{target}").write_export
    return writer
