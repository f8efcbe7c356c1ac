"""stats.json: the channel statistics of a dataset's train split."""

from os import PathLike
from pathlib import Path

from shardset.errors import InputError
from shardset.manifest import Split
from shardset.models import Model, parse_json

ByChannel = dict[str, float]


class Statistics(Model, frozen=True):
    """The contents of stats.json: figures of one split by channel name, for pixels scaled to [0, 1].

    `std` is the population standard deviation over all pixels, dividing by it gives unit variance;
    `std_per_image` is the mean over images of each image's own standard deviation. (The 0.2023 in many tutorials is
    the latter for red, computed with n - 1 instead of n.)
    """

    dataset: str
    split: Split
    images: int
    pixels_per_channel: int
    mean: ByChannel
    std: ByChannel
    std_per_image: ByChannel
    min: ByChannel
    max: ByChannel

    def __post_init__(self) -> None:
        for name in ("std", "std_per_image", "min", "max"):
            if getattr(self, name).keys() != self.mean.keys():
                raise ValueError(f"{name}: should have the channels of mean")

    def summary(self) -> str:
        """Describe the statistics in one line."""
        mean, std = (" ".join(f"{value:.4f}" for value in values.values()) for values in (self.mean, self.std))
        return f"{self.dataset} {self.split}, {self.images:,} images, mean {mean}, std {std} ({', '.join(self.mean)})"


def read_statistics(path: Path) -> Statistics:
    """Read stats.json. Raises InputError, which names the file and the key that is wrong."""
    try:
        return parse_json(path.read_bytes(), Statistics)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def load_stats(path: str | PathLike[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read the mean and std of each channel from stats.json, as `transforms.Normalize` takes them.

    They are those of the train split, for pixels scaled to [0, 1], in the order of the channels. Raises InputError,
    which names the file and the key that is wrong.
    """
    stats = read_statistics(Path(path))
    return tuple(stats.mean.values()), tuple(stats.std.values())
