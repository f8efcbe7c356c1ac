"""The formats of an export, named as on the command line and in the extras."""

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from shardset.errors import InputError

if TYPE_CHECKING:
    from pipeline.export.samples import PixelSet

# Writes all files of an export into an empty folder.
WriteExport = Callable[["PixelSet", Path], None]


class Format(StrEnum):
    """A format. Its value is the name of the module that writes it and of the extra that this module needs."""

    parquet = "parquet"
    webdataset = "webdataset"
    mds = "mds"


def load_writer(export_format: Format) -> WriteExport:
    """Return the function that writes a format. Raises InputError, which names the extra, if a library is missing."""
    try:
        writer: WriteExport = import_module(f"pipeline.export.{export_format}").write_export
    except ModuleNotFoundError as error:
        raise InputError(
            f"--format {export_format} needs {error.name}. In a clone of cifar-pipeline: "
            f"pip install --constraint constraints.txt -e '.[{export_format}]'"
        ) from None
    return writer
