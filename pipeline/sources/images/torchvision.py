"""Datasets of torchvision by the name of their class.

Their images are opened, decoded and converted as your own images are, where they are files.
"""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.decode import Header, read_header
from pipeline.sources.images.layout import find_class_problems
from pipeline.sources.images.samples import CHANNELS, choose_mode, image_shape
from pipeline.sources.images.torchvision_classes import ROOT_HINT, download, find_class
from pipeline.sources.images.torchvision_reader import Opening, TorchvisionReader, opened_image, take_sample
from pipeline.sources.stored import StoredSamples, save_rows
from shardset.errors import InputError
from shardset.manifest import Preparation, Split
from shardset.reader import Labels, split_range

LOGGER = logging.getLogger(__name__)

TORCHVISION = "torchvision:"
SAMPLES_PER_TASK = 1_000


def read_torchvision(name: str, root: Path, source: str | None, preparation: Preparation) -> "TorchvisionSource":
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
    opening = Opening(name, folder.absolute(), problem, way_out, os.urandom(8).hex())
    with opening.explained():
        datasets = opening.datasets()
        labels, headers = {}, []
        for split in [*datasets]:
            if split != "train" and len(datasets[split]) and datasets[split][0][1] is None:
                LOGGER.info("Left out: %s, which has no labels", split)
                del datasets[split]
            else:
                labels[split], of_split = _survey(datasets[split], split)
                headers += of_split
    classes = _check_classes(name, datasets, labels)
    mode = choose_mode(headers, preparation)
    _suggest_size(headers, preparation)
    return TorchvisionSource(classes, labels, TorchvisionReader(opening, Path(), mode, preparation))


@dataclass(frozen=True)
class TorchvisionSource:
    """A dataset of torchvision: the class names, and labels, (N,) int64, of each split."""

    classes: tuple[str, ...]
    labels: Mapping[Split, Labels]
    reader: TorchvisionReader

    @property
    def splits(self) -> Collection[Split]:
        return self.labels

    def store(self, folder: Path) -> StoredSamples:
        folder.mkdir()
        for split, of_split in self.labels.items():
            save_rows(folder / f"{split}.labels.npy", of_split)
        mode, preparation = self.reader.mode, self.reader.preparation
        return StoredSamples(
            classes=self.classes,
            channels=CHANNELS[mode],
            image_shape=image_shape(mode, preparation),
            num_samples={split: len(of_split) for split, of_split in self.labels.items()},
            reader=replace(self.reader, labels_dir=folder),
            inputs=os.urandom(16).hex(),  # as of no other run, because samples without files of their own have no hash
            preparation=preparation,
        )


def _survey(dataset: Any, split: Split) -> tuple[Labels, list[Header]]:  # noqa: ANN401
    """Read the label of each sample, and the headers of those that can be read. Files are not decoded."""

    def look(bounds: tuple[int, int]) -> list[tuple[int, Header | None]]:
        return [_look_at(*take_sample(dataset, split, index)) for index in range(*bounds)]

    blocks = imap_on_threads(look, split_range(0, len(dataset), SAMPLES_PER_TASK))
    labels = np.empty(len(dataset), np.int64)
    headers: list[Header] = []
    kinds: dict[Header, Header] = {}  # one for all images that are alike
    for index, (label, header) in enumerate(chain.from_iterable(blocks)):
        labels[index] = label
        if header:
            headers.append(kinds.setdefault(header, header))
    return labels, headers


def _look_at(image: Path | Image.Image, label: int) -> tuple[int, Header | None]:
    try:
        with opened_image(image) as opened:
            return label, read_header(opened)
    except UnreadableImageError:
        return label, None


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
        names = {split: [("", classes[label]) for label in np.unique(of_split)] for split, of_split in labels.items()}
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
