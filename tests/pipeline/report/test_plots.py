import re

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.report.plots import (
    BOTTOM,
    CHANNEL_COLORS,
    DASHES,
    LEFT,
    OTHER_COLORS,
    RIGHT,
    SPLIT_COLORS,
    plot_channels,
    plot_histogram,
)
from tests.helpers.audits import audit_with
from tests.helpers.shard_sets import make_images, write_raw_set

STD_TABLE = (np.arange(256) / 255 - [[0.5], [0.4], [0.3]]) / [[0.2], [0.25], [0.4]]
CHANNELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Details of three splits of different sizes."""
    images = {"train": make_images(40), "val": make_images(9, seed=2), "test": make_images(16, seed=1)}
    return audit_with(write_raw_set(tmp_path_factory.mktemp("plots") / "raw", **images))[0].splits


def luminance(color):
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def drawn_line(plot, color, split):
    """The points of a line, as (2, N)."""
    (points,) = re.findall(
        f'<polyline points="([^"]*)" stroke="{color}" stroke-dasharray="{DASHES[split]}"/>', plot.svg
    )
    return np.array([point.split(",") for point in points.split()], float).T


def assert_drawn(line, values):
    """The height of a line above the axis is in proportion to the values."""
    heights = BOTTOM - line[1]
    assert heights / heights.max() == pytest.approx(np.array(values) / max(values), abs=0.01)


@pytest.mark.parametrize("split", SPLIT_COLORS)
@pytest.mark.parametrize(("name", "limit"), [("brightness", 1), ("contrast", 0.5)])
def test_histograms_are_drawn_over_their_range(split, name, limit, splits):
    line = drawn_line(plot_histogram(splits, name, limit), SPLIT_COLORS[split], split)
    assert_drawn(line, splits[split].histograms[name])
    half_bin = (RIGHT - LEFT) / 100
    assert line[0, [0, -1]] == pytest.approx([LEFT + half_bin, RIGHT - half_bin], abs=0.1)


@pytest.mark.parametrize("split", SPLIT_COLORS)
@pytest.mark.parametrize("channel", CHANNELS)
def test_channels_are_drawn_before_and_after_normalizing(split, channel, splits):
    before, after = plot_channels(splits, STD_TABLE)
    counts = splits[split].pixel_counts[channel]
    for plot in (before, after):
        assert_drawn(drawn_line(plot, CHANNEL_COLORS[channel], split), counts)


def test_normalized_channels_lie_at_their_values_and_densities(splits):
    _, after = plot_channels(splits, STD_TABLE)
    lines = [drawn_line(after, CHANNEL_COLORS[channel], "train") for channel in CHANNELS]
    low, high = STD_TABLE.min(), STD_TABLE.max()
    for (x, _), values in zip(lines, STD_TABLE, strict=True):
        assert x == pytest.approx(LEFT + (values - low) / (high - low) * (RIGHT - LEFT), abs=0.1)
    areas = [np.trapezoid(BOTTOM - y, x) for x, y in lines]
    assert areas == pytest.approx([areas[0]] * 3, rel=0.02)


def test_y_axis_begins_at_zero(splits):
    for plot in (*plot_channels(splits, STD_TABLE), plot_histogram(splits, "contrast", 0.5)):
        assert f'<path class="grid" d="M{LEFT} {BOTTOM:.1f}H{RIGHT}"/>' in plot.svg


def test_legend_names_channels_and_splits(splits):
    texts = [re.findall(r">([a-z]+)</text>", plot.svg) for plot in plot_channels(splits, STD_TABLE)]
    assert all(set(of_plot) >= {*CHANNELS, *splits} for of_plot in texts)
    train = {"train": splits["train"]}
    assert not set(splits) & set(re.findall(r">([a-z]+)</text>", plot_channels(train, STD_TABLE)[0].svg))
    assert re.findall(r">(train|val|test)</text>", plot_histogram(train, "contrast", 0.5).svg) == ["train"]


def test_plots_have_a_label_and_no_ids_or_fixed_text_colour(splits):
    for plot in (*plot_channels(splits, STD_TABLE), plot_histogram(splits, "contrast", 0.5)):
        assert re.fullmatch(
            r'<svg viewBox="0 0 \d+ \d+" role="img" aria-label="Plot of [a-z ,]+">.*</svg>', plot.svg, re.DOTALL
        )
        assert " id=" not in plot.svg
        assert not re.search(r"<text[^>]*(fill|style)=", plot.svg)


def test_names_of_channels_are_escaped_and_coloured(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(4, (7, 8, 8)))
    (train,) = audit_with(raw)[0].splits.values()
    names = ["<b>&", *list(train.pixel_counts)[1:]]
    odd = replace(train, pixel_counts=dict(zip(names, train.pixel_counts.values(), strict=True)))
    plot, _ = plot_channels({"train": odd}, np.tile(STD_TABLE[:1], (7, 1)))
    assert "&lt;b&gt;&amp;</text>" in plot.svg
    assert "<b>" not in plot.svg
    assert {color for color in OTHER_COLORS if f'stroke="{color}"' in plot.svg} == set(OTHER_COLORS)


@pytest.mark.parametrize("value", [0, 255])
def test_one_constant_image_can_be_plotted(value, tmp_path):
    raw = write_raw_set(tmp_path / "raw", np.full((1, 3, 8, 8), value, np.uint8))
    splits = audit_with(raw)[0].splits
    for plot in (*plot_channels(splits, STD_TABLE), plot_histogram(splits, "contrast", 0.5)):
        assert "nan" not in plot.svg
        assert "inf" not in plot.svg


def test_colours_contrast_with_light_and_dark_paper():
    for color in (*SPLIT_COLORS.values(), *CHANNEL_COLORS.values(), *OTHER_COLORS):
        assert contrast(color, "#ffffff") >= 3
        assert contrast(color, "#151719") >= 3
