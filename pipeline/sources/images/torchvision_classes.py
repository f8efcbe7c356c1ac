"""The classes of torchvision: found by name, and opened for all of their splits from files or a download.

How a class names its splits and what it needs is read from its signature. Where a class takes a `loader`, it is given
one that returns the path, so that the images are not opened, decoded and converted by torchvision.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.runtime.files import replace_dir
from shardset.errors import InputError, ShardSetError, describe_os_error, named_os_errors
from shardset.manifest import Split
from shardset.models import printable

LOGGER = logging.getLogger(__name__)

# What classes call their splits. The first name that a class accepts is taken.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
# Classes whose files are class folders. ImageNet would also unpack its archives into the source, and Omniglot numbers
# its classes in the order of the file system, which differs.
FOLDER_CLASSES = ("DatasetFolder", "ImageFolder", "ImageNet", "Omniglot")
ROOT_HINT = "the folder that torchvision calls root"
# OSErrors that say something about the dataset or the network rather than about this machine.
FOREIGN_OS_ERRORS = (FileNotFoundError, NotADirectoryError, ConnectionError, TimeoutError)
MAX_REASON = 300  # characters


def find_class(name: str) -> Any:  # noqa: ANN401 (torchvision is imported only when needed)
    """Return a class of torchvision. Raises InputError if there is none, or if its samples can't be stored."""
    from torchvision import __version__, datasets

    if name in FOLDER_CLASSES:
        raise InputError(f"torchvision:{name}: set dataset to images, and images.source to the folder of the images")
    usable = [other for other in datasets.__all__ if _is_usable(getattr(datasets, other))]
    if name not in usable:
        by_key = {other.lower(): other for other in usable}
        similar = [by_key[key] for key in get_close_matches(name.lower(), by_key, n=1)]
        hint = f"did you mean {similar[0]}?" if similar else "an example is FashionMNIST"
        raise InputError(
            f"torchvision:{name}: torchvision {__version__} has no dataset of this name whose samples are an image and "
            f"a class; {hint}"
        )
    return getattr(datasets, name)


def _is_usable(candidate: object) -> bool:
    if not isinstance(candidate, type) or candidate.__name__ in FOLDER_CLASSES:
        return False
    parameters = signature(candidate).parameters.values()
    required = {parameter.name for parameter in parameters if parameter.default is Parameter.empty}
    return "root" in required and required <= {"root", "split", "kwargs"}


def download(factory: Any, root: Path) -> None:  # noqa: ANN401
    """Have torchvision download all splits into the folder `root`, unless it exists.

    After an interruption there is no such folder, because torchvision takes half-unpacked files for complete. Raises
    InputError if the class can't download, and PipelineError if it fails.
    """
    if root.is_dir():
        return
    name = factory.__name__
    way_out = f"get the files elsewhere and set PIPELINE_SOURCE to {ROOT_HINT}."
    if not _takes_download(factory):
        raise InputError(f"torchvision:{name}: torchvision can't download it: {way_out}")
    LOGGER.info("Fetching %s through torchvision", name)
    with (
        explained(PipelineError, f"torchvision could not download {name}", f"Try again, or {way_out}"),
        replace_dir(root) as new_dir,
        named_os_errors(root),
        redirect_stdout(sys.stderr),  # older versions print
    ):
        open_splits(factory, new_dir, fetch=True)


def _takes_download(factory: Any) -> bool:  # noqa: ANN401
    parameters = signature(factory).parameters
    return "download" in parameters or any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())


def open_splits(factory: Any, folder: Path, *, fetch: bool = False) -> dict[Split, Any]:  # noqa: ANN401
    """Open all splits that a class has. Raises InputError if train isn't one, and whatever the class raises."""
    parameters = signature(factory).parameters
    arguments: dict[str, Any] = {"root": str(folder)}
    if _takes_download(factory):
        arguments["download"] = fetch
    if "loader" in parameters:
        arguments["loader"] = Path
    if "train" in parameters:
        return {"train": factory(**arguments, train=True), "test": factory(**arguments, train=False)}
    if "split" not in parameters:
        dataset = factory(**arguments)
        if factory.__name__ == "SUN397":  # it lists files in the order of the file system, which differs
            pairs = sorted(zip(dataset._image_files, dataset._labels, strict=True))  # noqa: SLF001
            dataset._image_files = [path for path, _ in pairs]  # noqa: SLF001
            dataset._labels = [label for _, label in pairs]  # noqa: SLF001
        return {"train": dataset}
    found = {split: _open_split(factory, arguments, split) for split in SPLIT_NAMES}
    if found["train"] is None:
        raise InputError(f"torchvision:{factory.__name__}: its argument split has no value that means train")
    return {split: dataset for split, dataset in found.items() if dataset is not None}


@contextmanager
def no_new_folders(folder: Path) -> Iterator[None]:
    """Remove the empty folders that some classes create when they find no files."""
    before = {*folder.iterdir()}
    try:
        yield
    finally:
        for path in {*folder.iterdir()} - before:
            with suppress(OSError):
                path.rmdir()


def _open_split(factory: Any, arguments: dict[str, Any], split: Split) -> Any | None:  # noqa: ANN401
    for value in SPLIT_NAMES[split]:
        try:
            return factory(**arguments, split=value)
        except ValueError as error:
            if not str(error).startswith("Unknown value"):
                raise
    return None


@contextmanager
def explained(error_type: type[ShardSetError], problem: str, way_out: str) -> Iterator[None]:
    """Turn what torchvision's classes raise for files that they can't use into one line."""
    try:
        yield
    except (ShardSetError, MemoryError):
        raise
    except ImportError as error:
        raise InputError(f"{problem}: torchvision needs {error.name} for it: pip install {error.name}") from None
    except Exception as error:
        # Of many types: RuntimeError, KeyError, EOFError, BadZipFile, those of pickle and scipy, and others.
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            if not isinstance(error, FOREIGN_OS_ERRORS):
                raise
            reason = f"{error.filename}: {describe_os_error(error)}" if error.filename else describe_os_error(error)
        reason = printable(re.sub(r" You can \w+ download=True.*", "", reason), MAX_REASON).rstrip(".")
        raise error_type(f"{problem}: {reason}. {way_out}") from None
