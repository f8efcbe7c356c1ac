"""details.json: every figure of the audit that is not a headline. The report is rendered from it."""

from pathlib import Path

from shardset.errors import CorruptDataError
from shardset.manifest import Split
from shardset.models import Model, parse_json
from shardset.statistics import Statistics

DETAILS_NAME = "details.json"
HISTOGRAM_LIMITS = {"brightness": 1.0, "contrast": 0.5}  # the highest value that each can have


class Spread(Model, frozen=True):
    """The minimum, mean and maximum over the images of a split."""

    min: float
    mean: float
    max: float


class ClassFigures(Model, frozen=True):
    """One class in one split.

    `mean_color`, by channel, and `brightness` are means over all pixels scaled to [0, 1], null without samples.
    `leaked` and `twins` count images as in SplitDetails.
    """

    samples: int
    mean_color: tuple[float, ...] | None
    brightness: float | None
    leaked: int
    twins: int


class SplitDetails(Model, frozen=True):
    """One split. Brightness and contrast are the mean and the std of an image over all channels, pixels in [0, 1].

    `pixel_counts` says how often each of the 256 pixel values occurs, by channel. `histograms` counts images in equal
    bins from 0 to HISTOGRAM_LIMITS. `leaked` counts the images with a near-duplicate in train, `twins` those with an
    earlier near-duplicate in this split, `exact_duplicates` those that equal an earlier image of this split bit for
    bit, and `exact_in` those that equal an image of an earlier split, by that split.
    """

    samples: int
    statistics: Statistics
    brightness: Spread
    contrast: Spread
    pixel_counts: dict[str, tuple[int, ...]]
    histograms: dict[str, tuple[int, ...]]
    classes: dict[str, ClassFigures]
    leaked: int
    twins: int
    exact_duplicates: int
    exact_in: dict[Split, int]


class Oddity(Model, frozen=True):
    """Images of one split that stand out for one reason, most extreme first.

    `rule` is a short phrase. `count` is the number of images that meet it, null for a ranking, such as the darkest.
    `indices` and `values` are of the first few images: their index and the measure.
    """

    name: str
    split: Split
    count: int | None
    rule: str
    indices: tuple[int, ...]
    values: tuple[float, ...]


class Band(Model, frozen=True):
    """Near-duplicates within a distance: pairs, images of `split` in them, and pairs whose labels differ."""

    split: Split
    other_split: Split
    distance: float
    pairs: int
    images: int
    label_conflicts: int


class Details(Model, frozen=True):
    """The contents of details.json.

    `content_sha256` identifies the data. `searched` is false if the images are too small to be compared; exact
    duplicates are found nevertheless. `ignored` counts the pairs that were left out because they were judged before,
    `ignored_conflicts` those of them whose labels differ. `clusters` counts the groups of images that near-duplicates
    connect, `largest_cluster` the images of the largest.
    """

    content_sha256: str
    searched: bool
    max_distance: float
    splits: dict[Split, SplitDetails]
    bands: tuple[Band, ...]
    label_conflicts: int
    clusters: int
    largest_cluster: int
    ignored: int
    ignored_conflicts: int
    oddities: tuple[Oddity, ...]


def load_details(audit_dir: Path) -> Details:
    """Read details.json. Raises CorruptDataError, which names the file and the key that is wrong."""
    path = audit_dir / DETAILS_NAME
    try:
        return parse_json(path.read_bytes(), Details)
    except FileNotFoundError:
        raise CorruptDataError(f"{path}: no such file") from None
    except ValueError as error:
        raise CorruptDataError(f"{path}: {error}") from None
