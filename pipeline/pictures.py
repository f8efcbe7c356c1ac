"""The pictures of the report: images as PNG, and plots as SVG, with the same bytes at every run.

They stand inside the page: nothing is loaded, and plots take their text's colour and font from it, light or dark.
"""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import ArrayLike

from pipeline.duplicates import NearDuplicate
from pipeline.manifest import SPLITS, Split
from pipeline.shards import Array, Labels, Pixels, ShardSet
from pipeline.survey import NUM_BINS, Survey

SAMPLES_PER_CLASS = 8
CLOSEST_PAIRS = 24
FARTHEST_PAIRS = 12
GAP = 2  # pixels between images
WIDTH = 4.0  # of plots, in inches

# Of at least 3:1 beside white and beside the page's dark background.
COLORS: dict[Split, str] = {"train": "#3b82c4", "test": "#c8641b"}
TEXT_COLOR = "#010203"  # stands for the page's own
NO_SOFTWARE: Any = {"Software": None}  # no version of matplotlib
SETTINGS: Any = {
    "axes.edgecolor": TEXT_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": TEXT_COLOR,
    "text.parse_math": False,  # a class may have a dollar in its name
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
}


@dataclass(frozen=True)
class Png:
    """An image for the page, as a data URL, with its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class Plot:
    """A plot for the page, with what it is called."""

    title: str
    svg: str


@dataclass(frozen=True)
class PairPicture:
    """A test image beside its near duplicate in train, as they are stored."""

    pair: NearDuplicate
    test_class: str
    train_class: str
    png: Png


def draw_samples(raw: ShardSet, table: Array) -> list[tuple[str, Png, Png]]:
    """Draw the first train images of each class, as they are and normalized, by the class's name.

    `table`, (C, 256) float32, is what pixels become; its range is scaled to that of the display.
    """
    labels = raw.labels("train")
    low, high = float(table.min()), float(table.max())
    shown = np.rint((table.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
    drawn = []
    for label, name in enumerate(raw.manifest.classes):
        images = raw.take("train", np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS])
        if len(images):
            channels = np.arange(images.shape[1])[:, None, None]
            drawn.append((name, draw_images(images), draw_images(shown[channels, images])))
    return drawn


def draw_means(survey: Survey) -> list[tuple[str, Png]]:
    """Draw the mean image of a split and of each of its classes."""
    counts = survey.figures.classes
    of_all = ("all", survey.class_sums.sum(axis=0), sum(counts.values()))
    of_classes = zip(counts, survey.class_sums, counts.values(), strict=True)
    return [
        (name, draw_images(((sums + count // 2) // count).astype(np.uint8)[None]))
        for name, sums, count in (of_all, *of_classes)
        if count
    ]


def draw_extremes(raw: ShardSet, survey: Survey, split: Split) -> list[tuple[str, list[int], Png]]:
    """Draw the images of a split that stand out, by what they are, with their indices."""
    return [
        (name, indices, draw_images(raw.take(split, np.array(indices)))) for name, indices in survey.extremes().items()
    ]


def draw_pairs(raw: ShardSet, pairs: Sequence[NearDuplicate]) -> list[PairPicture]:
    """Draw each pair of near duplicates, test beside train."""
    tests, trains = (np.array([getattr(pair, split) for pair in pairs], np.int64) for split in ("test", "train"))
    of_test, of_train = raw.take("test", tests), raw.take("train", trains)
    labels: dict[Split, Labels] = {split: raw.labels(split) for split in SPLITS}
    classes = raw.manifest.classes
    return [
        PairPicture(
            pair,
            classes[labels["test"][pair.test]],
            classes[labels["train"][pair.train]],
            draw_images(np.stack([of_test[index], of_train[index]])),
        )
        for index, pair in enumerate(pairs)
    ]


def plot_channels(surveys: Mapping[Split, Survey], channels: Sequence[str], table: Array) -> list[Plot]:
    """Plot how often each pixel value occurs, by channel, before and after normalizing by `table`, (C, 256)."""
    limits = float(table.min()), float(table.max())
    before = [(f"{name}, before", np.arange(256), "pixel value", None) for name in channels]
    after = [(f"{name}, normalized", table[index], "value", limits) for index, name in enumerate(channels)]
    plots = []
    for index, (title, values, label, x_limits) in chain(enumerate(before), enumerate(after)):
        shares = {split: percent(survey.pixel_counts[index]) for split, survey in surveys.items()}
        plots.append(_plot_lines(title, values, shares, x_label=label, y_label="% of pixels", x_limits=x_limits))
    return plots


def plot_images(surveys: Mapping[Split, Survey]) -> list[Plot]:
    """Plot how images spread in brightness and in contrast."""
    plots = []
    for name, limit in (("brightness", 1), ("contrast", 0.5)):
        shares = {split: percent(survey.histograms()[name]) for split, survey in surveys.items()}
        centers = (np.arange(NUM_BINS) + 0.5) * limit / NUM_BINS
        plots.append(_plot_lines(name, centers, shares, x_label=name, y_label="% of images"))
    return plots


def plot_classes(surveys: Mapping[Split, Survey]) -> Plot:
    """Plot which part of each split each class has."""
    shares = {split: percent(list(survey.figures.classes.values())) for split, survey in surveys.items()}
    names = list(surveys["train"].figures.classes)

    def draw(axes: Axes) -> None:
        for offset, (split, values) in zip((-0.2, 0.2), shares.items(), strict=True):
            axes.barh(np.arange(len(names)) + offset, values, 0.38, color=COLORS[split], label=split)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("% of the split")

    left = min(0.3 + 0.1 * max(map(len, names)), WIDTH / 2)
    return Plot("class balance", _draw_svg("class balance", draw, left, height=1 + 0.3 * len(names)))


def percent(counts: ArrayLike) -> Array:
    """Turn counts into shares of their sum, in percent."""
    shares: Array = 100 * np.asarray(counts) / np.sum(counts)
    return shares


def draw_images(images: Pixels) -> Png:
    """Draw images, (n, C, H, W), in a row; of more than one channel the first three are red, green and blue."""
    num_images, _, height, width = images.shape
    rgb = images[:, :3] if images.shape[1] >= len("rgb") else images[:, :1].repeat(3, axis=1)
    row = np.zeros((height, num_images * (width + GAP) - GAP, 4), np.uint8)
    for index, image in enumerate(rgb):
        left = index * (width + GAP)
        row[:, left : left + width, :3] = image.transpose(1, 2, 0)
        row[:, left : left + width, 3] = 255
    png = io.BytesIO()
    # Not compressed: how it would be is the compressor's affair, and may change with version or CPU.
    imsave(png, row, format="png", origin="upper", metadata=NO_SOFTWARE, pil_kwargs={"compress_level": 0})
    return Png("data:image/png;base64," + base64.b64encode(png.getvalue()).decode(), row.shape[1], height)


def _plot_lines(
    title: str,
    x: Array,
    y_by_split: Mapping[Split, Array],
    *,
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None = None,
) -> Plot:
    def draw(axes: Axes) -> None:
        for split, y in y_by_split.items():
            dashes = "-" if split == "train" else "--"
            axes.plot(x, y, dashes, color=COLORS[split], label=split, linewidth=1.2)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, None), xlim=x_limits)

    return Plot(title, _draw_svg(title, draw))


def _draw_svg(title: str, draw: Callable[[Axes], None], left: float = 0.6, height: float = 2.6) -> str:
    """Draw a plot, `height` inches high, with `left` of them for what stands beside the axes."""
    with mpl.rc_context():
        mpl.rcdefaults()  # no settings of the person who runs it
        mpl.rcParams.update(SETTINGS | {"svg.hashsalt": title})
        figure = Figure(figsize=(WIDTH, height))
        # Margins that are given take half the time of those that matplotlib finds.
        right, above, below = 0.1, 0.3, 0.5
        axes = figure.add_axes((left / WIDTH, below / height, 1 - (left + right) / WIDTH, 1 - (below + above) / height))
        draw(axes)
        axes.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(text.getvalue())


def _inline(svg: str) -> str:
    """Make of an SVG file what stands inside a page: no prolog, no names that two plots share, the page's colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| id="[a-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*|[ \t]+$", "", svg, flags=re.DOTALL | re.MULTILINE)
    return svg.replace("xlink:href", "href").replace(TEXT_COLOR, "currentColor")


def closest_and_farthest(pairs: Iterable[NearDuplicate]) -> tuple[list[NearDuplicate], list[NearDuplicate]]:
    """Choose the closest pairs, and of the others those that are only just near duplicates, closest first."""
    ordered = sorted(pairs, key=lambda pair: (pair.distance, pair.test, pair.train))
    return ordered[:CLOSEST_PAIRS], ordered[CLOSEST_PAIRS:][-FARTHEST_PAIRS:]
