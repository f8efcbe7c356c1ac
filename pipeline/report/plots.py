"""The plots of the report: SVG that is part of the page, and takes its colour and font, light or dark, from there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from math import ceil, floor, log10

import numpy as np

from pipeline.audit.details import SplitDetails
from shardset.manifest import Split
from shardset.reader import Array

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 470, 30, 205  # of the area where lines are drawn
TICKS = 6  # at most about so many an axis
LINE_GAP, LETTER = 34, 7  # of the legend: width of a sample of a line with its gaps, and of a letter

# Each has a contrast of at least 3:1 against white and against the page's dark background.
SPLIT_COLORS: dict[Split, str] = {"train": "#3b82c4", "val": "#4c9a4c", "test": "#c8641b"}
CHANNEL_COLORS = {"red": "#d8433b", "green": "#3f9142", "blue": "#3b82c4", "grey": "#808080"}
OTHER_COLORS = ("#8d6bc9", "#c8641b", "#3a928f", "#b5578f", "#808080")
DASHES: dict[Split, str] = {"train": "", "val": "2 2", "test": "8 3"}


@dataclass(frozen=True)
class Line:
    """A line of a plot: its points, x and y of shape (N,), and how it is drawn."""

    x: Array
    y: Array
    color: str
    dashes: str


@dataclass(frozen=True)
class Plot:
    """A plot for the page, with its title."""

    title: str
    svg: str


def plot_channels(splits: Mapping[Split, SplitDetails], table: Array) -> list[Plot]:
    """Plot how often each pixel value occurs, all channels in one plot, before and after normalizing by `table`.

    `table`, (C, 256), is what pixel values become.
    """
    channels = splits["train"].pixel_counts
    colors = _channel_colors(channels)
    before, after = [], []
    for split, of in splits.items():
        for (channel, counts), values in zip(of.pixel_counts.items(), table.astype(np.float64), strict=True):
            share = np.array(counts) / sum(counts)
            step = (values[-1] - values[0]) / 255
            before.append(Line(np.arange(256), 100 * share, colors[channel], DASHES[split]))
            after.append(Line(values, share / step, colors[channel], DASHES[split]))
    legend = [(channel, colors[channel], "") for channel in channels]
    if len(splits) > 1:
        legend += [(split, "currentColor", DASHES[split]) for split in splits]
    return [
        Plot("pixel values", _draw("Plot of pixel values", before, legend, "pixel value", "% of pixels")),
        Plot("normalized values", _draw("Plot of normalized values", after, legend, "normalized value", "density")),
    ]


def plot_histogram(splits: Mapping[Split, SplitDetails], name: str, limit: float) -> Plot:
    """Plot the distribution over images of a measure in [0, limit], such as brightness."""
    lines = []
    for split, of in splits.items():
        counts = np.array(of.histograms[name])
        centers = (np.arange(len(counts)) + 0.5) * limit / len(counts)
        lines.append(Line(centers, 100 * counts / counts.sum(), SPLIT_COLORS[split], DASHES[split]))
    legend = [(split, SPLIT_COLORS[split], DASHES[split]) for split in splits]
    return Plot(name, _draw(f"Plot of {name}, by split", lines, legend, name, "% of images", (0, limit)))


def _channel_colors(channels: Iterable[str]) -> dict[str, str]:
    others = cycle(OTHER_COLORS)
    return {channel: CHANNEL_COLORS.get(channel) or next(others) for channel in channels}


def _draw(
    label: str,
    lines: Sequence[Line],
    legend: Sequence[tuple[str, str, str]],
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None = None,
) -> str:
    """Draw lines; y begins at 0. `legend` has a name, a color and dashes for each entry."""
    low, high = x_limits or (min(line.x.min() for line in lines), max(line.x.max() for line in lines))
    top = max(line.y.max() for line in lines) * 1.04
    pieces = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for value in _ticks(0, top):
        y = _scale(value, 0, top, BOTTOM, TOP)
        pieces.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        pieces.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(low, high):
        x = _scale(value, low, high, LEFT, RIGHT)
        pieces.append(f'<path class="axis" d="M{x:.1f} {BOTTOM}v4"/>')
        pieces.append(f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    pieces.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    pieces.append(f'<text x="{RIGHT}" y="{BOTTOM + 37}" text-anchor="end">{escape(x_label)}</text>')
    pieces.append(f'<text x="0" y="14">{escape(y_label)}</text>')
    pieces += _draw_legend(legend)
    for line in lines:
        x, y = _scale(line.x, low, high, LEFT, RIGHT), _scale(line.y, 0, top, BOTTOM, TOP)
        points = " ".join(f"{left:.1f},{down:.1f}" for left, down in zip(x.tolist(), y.tolist(), strict=True))
        pieces.append(f'<polyline points="{points}" stroke="{line.color}" stroke-dasharray="{line.dashes}"/>')
    return "\n".join([*pieces, "</svg>"])


def _draw_legend(legend: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    right = RIGHT
    for name, color, dashes in reversed(legend):
        right -= LETTER * len(name)
        yield f'<text x="{right}" y="14">{escape(name)}</text>'
        yield f'<path d="M{right - 24} 10h20" stroke="{color}" stroke-dasharray="{dashes}"/>'
        right -= LINE_GAP


def _scale(value: Array | float, low: float, high: float, first: float, last: float) -> Array:
    """Map [low, high] to [first, last]."""
    return np.asarray(first + (np.asarray(value) - low) / ((high - low) or 1) * (last - first))


def _ticks(low: float, high: float) -> list[float]:
    """Choose round values in [low, high]."""
    rough = (high - low) / TICKS or 1
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(number * step, 10) + 0.0 for number in range(ceil(low / step), floor(high / step) + 1)]
