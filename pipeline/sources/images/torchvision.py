"""Datasets of torchvision by the name of their class."""

from pathlib import Path

from pipeline.sources.images.samples import ImageSamples
from shardset.errors import InputError
from shardset.manifest import Preparation

TORCHVISION = "torchvision:"


def read_torchvision(name: str, root: Path, source: str | None, preparation: Preparation) -> ImageSamples:
    """Open a dataset of torchvision, whose samples are pairs of a PIL image and an int.

    Its files are found in the folder `source`, or downloaded by torchvision into `root`. Raises InputError.
    """
    raise InputError(f"{name} {root} {source} {preparation}")
