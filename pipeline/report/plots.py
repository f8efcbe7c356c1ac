"""The plots of the report: SVG with the same bytes on every run.

They are part of the page: nothing is loaded, and text takes its colour and font from the page, light or dark.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.audit.survey import NUM_BINS, Survey
from pipeline.report.tables import percent
from shardset.manifest import Split
from shardset.reader import Array

WIDTH = 4.0  # of plots, in inches

# Each has a contrast of at least 3:1 against white and against the page's dark background.
COLORS: dict[Split, str] = {"train": "#3b82c4", "val": "#4c9a4c", "test": "#c8641b"}
DASHES: dict[Split, str] = {"train": "-", "val": ":", "test": "--"}
TEXT_COLOR = "#010203"  # placeholder for the page's own
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
    "text.parse_math": False,  # a class name may contain a dollar sign
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
}


@dataclass(frozen=True)
class Plot:
    """A plot for the page, with its title."""

    title: str
    svg: str


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
    """Plot the distribution of brightness and of contrast over images."""
    plots = []
    for name, limit in (("brightness", 1), ("contrast", 0.5)):
        shares = {split: percent(survey.histograms()[name]) for split, survey in surveys.items()}
        centers = (np.arange(NUM_BINS) + 0.5) * limit / NUM_BINS
        plots.append(_plot_lines(name, centers, shares, x_label=name, y_label="% of images"))
    return plots


def plot_classes(surveys: Mapping[Split, Survey]) -> Plot:
    """Plot the share of each class in each split."""
    shares = {split: percent(list(survey.figures.classes.values())) for split, survey in surveys.items()}
    names = list(surveys["train"].figures.classes)

    def draw(axes: Axes) -> None:
        height = 0.76 / len(shares)
        for index, (split, values) in enumerate(shares.items()):
            offset = (index - (len(shares) - 1) / 2) * (height + 0.02)
            axes.barh(np.arange(len(names)) + offset, values, height, color=COLORS[split], label=split)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("% of the split")

    left = min(0.3 + 0.1 * max(map(len, names)), WIDTH / 2)
    return Plot("class balance", _draw_svg("class balance", draw, left, height=1 + 0.3 * len(names)))


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
            axes.plot(x, y, DASHES[split], color=COLORS[split], label=split, linewidth=1.2)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, None), xlim=x_limits)

    return Plot(title, _draw_svg(title, draw))


def _draw_svg(title: str, draw: Callable[[Axes], None], left: float = 0.6, height: float = 2.6) -> str:
    """Draw a plot, `height` inches high, with a margin of `left` inches for the labels of the y axis."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has fonts for class names
        mpl.rcdefaults()  # independent of the user's settings
        mpl.rcParams.update(SETTINGS | {"svg.hashsalt": title})
        figure = Figure(figsize=(WIDTH, height))
        # Fixed margins take half the time of those that matplotlib computes.
        right, above, below = 0.1, 0.3, 0.5
        axes = figure.add_axes((left / WIDTH, below / height, 1 - (left + right) / WIDTH, 1 - (below + above) / height))
        draw(axes)
        axes.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(text.getvalue())


def _inline(svg: str) -> str:
    """Prepare an SVG file for a page: no prolog, no ids that two plots share, the page's text colour."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*|[ \t]+$", "", svg[svg.index("<svg") :], flags=re.DOTALL | re.MULTILINE)
    return re.sub("<[^>]*>", lambda tag: _inline_tag(tag[0]), svg)  # text, such as class names, stays as it is


def _inline_tag(tag: str) -> str:
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"| id="[a-z0-9.]+_\d+"', "", tag)
    return tag.replace("xlink:href", "href").replace(TEXT_COLOR, "currentColor")
