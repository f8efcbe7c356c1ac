"""Datasets of torchvision by the name of their class.

Their images are opened, decoded and converted as your own images are, where they are files.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.decode import Header, Mode, open_image, read_header
from pipeline.sources.images.layout import find_class_problems
from pipeline.sources.images.samples import (
    CHANNELS,
    ImageFacts,
    ImageSamples,
    check_sizes,
    decode_sample,
    unreadable_sample,
)
from pipeline.sources.images.torchvision_classes import (
    ROOT_HINT,
    download,
    explained,
    find_class,
    no_new_folders,
    open_splits,
)
from shardset.errors import InputError, named_os_errors
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels, split_range

LOGGER = logging.getLogger(__name__)

TORCHVISION = "torchvision:"
SAMPLES_PER_TASK = 1_000


def read_torchvision(name: str, root: Path, source: str | None, preparation: Preparation) -> ImageSamples:
    """Open a dataset of torchvision, whose samples are pairs of a PIL image and an int.

    Its files are found in the folder `source`, or downloaded by torchvision into `root`. Raises InputError, and
    PipelineError for a failed download.
    """
    factory = find_class(name)
    if source is None:
        download(factory, root)
        folder, problem, way_out = root, f"{root}: no usable {name}", "Remove the folder to download it again."
    else:
        folder = Path(source).expanduser()
        problem, way_out = f"source {source}: no usable {name}", f"The source should be {ROOT_HINT}."
        if not folder.is_dir():
            raise InputError(f"{problem}: no such folder. {way_out}")
    with explained(InputError, problem, way_out), no_new_folders(folder), redirect_stdout(sys.stderr):
        datasets = open_splits(factory, folder)
        labels, headers = {}, {}
        for split in [*datasets]:
            if split != "train" and len(datasets[split]) and datasets[split][0][1] is None:
                LOGGER.info("Left out: %s, which has no labels", split)
                del datasets[split]
            else:
                labels[split], headers[split] = _survey(datasets[split], split)
    classes = _check_classes(name, datasets, labels)
    named = {
        f"{split} sample {index}": header
        for split, of_split in headers.items()
        for index, header in enumerate(of_split)
        if header
    }
    check_sizes(named, preparation)
    _suggest_size([*named.values()], preparation)
    mode: Mode = "L" if named and all(header.is_grey for header in named.values()) else "RGB"
    reader = _Reader(folder, datasets, mode, preparation)
    return ImageSamples(classes, CHANNELS[mode], labels, None, preparation, reader)


@dataclass(frozen=True)
class _Reader:
    """Reads the samples of datasets that were opened from `folder`."""

    folder: Path
    datasets: Mapping[Split, Any]
    mode: Mode
    preparation: Preparation

    def __call__(self, split: Split, index: int) -> tuple[Array, ImageFacts]:
        image, _ = _take_sample(self.datasets[split], split, index)
        try:
            with _opened(image) as opened:
                pixels, facts = decode_sample(opened, "", self.mode, self.preparation)
        except UnreadableImageError as error:
            pixels, facts = unreadable_sample(ImageFacts("", 0, 0, 1, "", str(error)), self.mode, self.preparation)
        if facts.problem and isinstance(image, Path):
            facts = facts._replace(problem=f"{relpath(image, self.folder)}: {facts.problem}")
        return pixels, facts


def _survey(dataset: Any, split: Split) -> tuple[Labels, list[Header | None]]:  # noqa: ANN401
    """Read the label and the header of each sample; None if the image can't be read. Files are not decoded."""

    def look(bounds: tuple[int, int]) -> list[tuple[int, Header | None]]:
        return [_look_at(*_take_sample(dataset, split, index)) for index in range(*bounds)]

    blocks = imap_on_threads(look, split_range(0, len(dataset), SAMPLES_PER_TASK))
    found = [sample for block in blocks for sample in block]
    return np.array([label for label, _ in found], np.int64), [header for _, header in found]


def _look_at(image: Path | Image.Image, label: int) -> tuple[int, Header | None]:
    try:
        with _opened(image) as opened:
            return label, read_header(opened)
    except UnreadableImageError:
        return label, None


def _take_sample(dataset: Any, split: Split, index: int) -> tuple[Path | Image.Image, int]:  # noqa: ANN401
    where = f"{split} sample {index}"
    with explained(InputError, f"{where} can't be read", "Repair or replace the files."):
        sample = dataset[index]
    match sample:
        case (Path() | Image.Image() as image, int() | np.integer() as label):
            return image, int(label)
    kinds = ", ".join(type(part).__name__ for part in sample) if isinstance(sample, tuple) else type(sample).__name__
    raise InputError(f"torchvision:{type(dataset).__name__}: {where}: should be an image and an int, got {kinds}")


@contextmanager
def _opened(image: Path | Image.Image) -> Iterator[Image.Image]:
    if isinstance(image, Path):
        with named_os_errors(image), image.open("rb") as file, open_image(file) as opened:
            yield opened
    else:
        with image:
            yield image


def _check_classes(name: str, datasets: Mapping[Split, Any], labels: Mapping[Split, Labels]) -> tuple[str, ...]:
    """Return the class names. Raises InputError if they aren't the same in all splits, or don't fit the labels."""
    num_labels = max((int(of_split.max()) + 1 for of_split in labels.values() if len(of_split)), default=0)
    by_split = {split: _class_names(dataset, num_labels) for split, dataset in datasets.items()}
    classes = by_split["train"]
    # Some classes number the names that they find in the files of a split.
    problems = [f"{split}: other class names than train" for split in by_split if by_split[split] != classes]
    for split, of_split in labels.items():
        if len(of_split) and (of_split.min() < 0 or of_split.max() >= len(classes)):
            problems.append(f"{split}: labels {of_split.min()} to {of_split.max()}, but {len(classes)} classes")
    if not problems:
        names = {split: [("", classes[label]) for label in of_split.tolist()] for split, of_split in labels.items()}
        problems = find_class_problems(names)
    if problems:
        raise InputError(f"torchvision:{name} can't be used: {'; '.join(problems)}")
    return classes


def _class_names(dataset: Any, num_labels: int) -> tuple[str, ...]:  # noqa: ANN401
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if not names:
        index_of = getattr(dataset, "class_to_idx", {})
        names = sorted(index_of, key=lambda name: index_of[name]) or map(str, range(num_labels))
    # Imagenette has several names for each class.
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)


def _suggest_size(headers: list[Header], preparation: Preparation) -> None:
    sizes = {(header.width, header.height) for header in headers}
    if preparation.resize is not None and len(sizes) == 1 and len({*(only := sizes.pop())}) == 1:
        LOGGER.info(
            "All images are %d x %d pixels. To store them as they are, set images.size to %d and images.resize to null",
            *only,
            only[0],
        )
