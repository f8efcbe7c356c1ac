import re

import numpy as np
import pytest

from pipeline.audit.survey import NUM_BINS, survey_splits
from pipeline.report.plots import COLORS, plot_channels, plot_classes, plot_images
from tests.helpers.shard_sets import make_images, write_raw_set

UNIT_TABLE = np.tile(np.arange(256, dtype=np.float32) / 255, (3, 1))
CHANNELS = ("red", "green", "blue")
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    """Surveys of three splits of different sizes, two classes each."""
    images = {"train": make_images(40), "val": make_images(9, seed=2), "test": make_images(16, seed=1)}
    return survey_splits(write_raw_set(tmp_path_factory.mktemp("plots") / "raw", **images), UNIT_TABLE)


@pytest.fixture(scope="module")
def channel_plots(surveys):
    return plot_channels(surveys, CHANNELS, UNIT_TABLE)


@pytest.fixture(scope="module")
def image_plots(surveys):
    return plot_images(surveys)


@pytest.fixture(scope="module")
def class_plot(surveys):
    return plot_classes(surveys)


def luminance(color):
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def drawn_line(plot, split):
    """The points of the line of a split, as (2, N)."""
    path, *_ = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {COLORS[split]}', plot.svg)
    return np.array(re.findall(rf"[ML] ({NUMBER}) ({NUMBER})", path), float).T


def assert_drawn(plot, split, values):
    x, y = drawn_line(plot, split)
    drawn = np.interp(np.linspace(x[0], x[-1], len(values)), x, y)
    assert np.corrcoef(drawn, values)[0, 1] < -0.999  # y grows downwards


@pytest.mark.parametrize("split", COLORS)
def test_image_plots_draw_the_histograms(split, image_plots, surveys):
    for plot, name in zip(image_plots, ("brightness", "contrast"), strict=True):
        assert plot.title == name
        histogram = surveys[split].histograms()[name]
        assert len(histogram) == NUM_BINS
        assert_drawn(plot, split, histogram)


@pytest.mark.parametrize("split", COLORS)
def test_channel_plots_draw_the_counts_before_and_after(split, channel_plots, surveys):
    assert [plot.title for plot in channel_plots] == [
        f"{channel}, {state}" for state in ("before", "normalized") for channel in CHANNELS
    ]
    for number, plot in enumerate(channel_plots):
        assert_drawn(plot, split, surveys[split].pixel_counts[number % 3])


def test_class_plot_draws_the_share_of_each_class(class_plot, surveys):
    svg = class_plot.svg
    for split, survey in surveys.items():
        *bars, _ = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {COLORS[split]}', svg)  # the last is the legend's
        widths = [np.ptp(np.array(re.findall(rf"[ML] ({NUMBER})", bar), float)) for bar in bars]
        counts = list(survey.figures.classes.values())
        assert np.array(widths) / sum(widths) == pytest.approx(np.array(counts) / sum(counts), abs=1e-4)
    assert re.findall(r">(class_\d)</text>", svg) == ["class_0", "class_1"]


def test_legend_names_each_split(channel_plots, image_plots, class_plot):
    for plot in (*channel_plots, *image_plots, class_plot):
        assert re.findall(r">(train|val|test)</text>", plot.svg) == ["train", "val", "test"]


def test_legend_names_train_alone(surveys):
    train = {split: survey for split, survey in surveys.items() if split == "train"}
    for plot in (*plot_images(train), plot_classes(train)):
        assert re.findall(r">(train|val|test)</text>", plot.svg) == ["train"]


def test_plots_can_be_put_into_one_page(channel_plots, image_plots, class_plot):
    plots = [*channel_plots, *image_plots, class_plot]
    ids = [name for plot in plots for name in re.findall(r'\bid="([^"]*)"', plot.svg)]
    assert len(set(ids)) == len(ids)
    for plot in plots:
        assert plot.svg.startswith("<svg")
        assert "currentColor" in plot.svg
        assert "xmlns" not in plot.svg
        assert "<metadata>" not in plot.svg
        assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', plot.svg)) <= {
            pair for name in ids for pair in ((name, ""), ("", name))
        }


def test_colours_contrast_with_light_and_dark_paper():
    for color in COLORS.values():
        assert contrast(color, "#ffffff") >= 3
        assert contrast(color, "#151719") >= 3
