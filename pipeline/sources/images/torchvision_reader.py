"""The samples of a dataset of torchvision, read one by one in any process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import Imap
from pipeline.sources.images.decode import Mode, open_image
from pipeline.sources.images.facts import ImageFacts
from pipeline.sources.images.samples import check_worker, decode_sample, in_blocks, unreadable_sample
from pipeline.sources.images.torchvision_classes import explained, find_class, no_new_folders, open_splits
from pipeline.sources.stored import load_rows
from shardset.errors import InputError, named_os_errors
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels


@dataclass(frozen=True)
class Opening:
    """What it takes to open a dataset in each process, once in a run, which `key` stands for."""

    name: str
    folder: Path
    problem: str
    way_out: str
    key: str

    @contextmanager
    def explained(self) -> Iterator[None]:
        with (
            explained(InputError, self.problem, self.way_out),
            no_new_folders(self.folder),
            redirect_stdout(sys.stderr),
        ):
            yield

    def datasets(self) -> dict[Split, Any]:
        """Return the splits."""
        return _open_once(self)


@lru_cache(maxsize=1)
def _open_once(opening: Opening) -> dict[Split, Any]:
    return open_splits(find_class(opening.name), opening.folder)


@dataclass(frozen=True)
class TorchvisionReader:
    """Reads the samples of a dataset of torchvision, whose labels are in `labels_dir`."""

    opening: Opening
    labels_dir: Path
    mode: Mode
    preparation: Preparation

    def labels(self, split: Split, start: int, stop: int) -> Labels:
        return load_rows(self.labels_dir / f"{split}.labels.npy", start, stop)

    def blocks(self, split: Split, start: int, stop: int, imap: Imap) -> Iterator[tuple[Array, list[ImageFacts]]]:
        """Decode samples [start, stop) in blocks: pixels, (n, C, H, W) uint8, black where there is a problem; facts."""
        check_worker(self.opening.folder)
        with self.opening.explained():
            dataset = self.opening.datasets()[split]
        decoded = imap(partial(self._decode, dataset, split), range(start, stop))
        yield from in_blocks(decoded, self.mode, self.preparation)

    def is_unchanged(self, *_: object) -> bool:
        return False  # unknown, because the samples may not come from files of their own

    def _decode(self, dataset: Any, split: Split, index: int) -> tuple[Array, ImageFacts]:  # noqa: ANN401
        image, _ = take_sample(dataset, split, index)
        try:
            with opened_image(image) as opened:
                pixels, facts = decode_sample(opened, "", self.mode, self.preparation)
        except UnreadableImageError as error:
            pixels, facts = unreadable_sample(ImageFacts("", 0, 0, 1, "", str(error)), self.mode, self.preparation)
        if facts.problem and isinstance(image, Path):
            facts = facts._replace(problem=f"{relpath(image, self.opening.folder)}: {facts.problem}")
        return pixels, facts


def take_sample(dataset: Any, split: Split, index: int) -> tuple[Path | Image.Image, int]:  # noqa: ANN401
    """Return the image of a sample, or the path of its file, and its label. Raises InputError."""
    where = f"{split} sample {index}"
    with explained(InputError, f"{where} can't be read", "Repair or replace the files."):
        sample = dataset[index]
    match sample:
        case (Path() | Image.Image() as image, int() | np.integer() as label):
            return image, int(label)
    kinds = ", ".join(type(part).__name__ for part in sample) if isinstance(sample, tuple) else type(sample).__name__
    raise InputError(f"torchvision:{type(dataset).__name__}: {where}: should be an image and an int, got {kinds}")


@contextmanager
def opened_image(image: Path | Image.Image) -> Iterator[Image.Image]:
    """Open an image or its file without decoding it. Raises UnreadableImageError."""
    if isinstance(image, Path):
        with named_os_errors(image), image.open("rb") as file, open_image(file) as opened:
            yield opened
    else:
        with image:
            yield image
