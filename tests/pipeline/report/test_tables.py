import csv
import io

import numpy as np
import pytest

from pipeline.report.proof import ValueFigures, compute_figures
from pipeline.report.tables import make_metrics, make_tables, percent
from pipeline.runtime.files import render_csv
from shardset.shards import open_shards
from tests.helpers.audits import audit_with
from tests.helpers.shard_sets import make_images, write_raw_set

UNIT_TABLE = np.tile(np.arange(256, dtype=np.float32) / np.float32(255), (3, 1))


def details_of(raw):
    return audit_with(raw)[0].splits


@pytest.fixture(scope="module")
def tiny_details(tiny_raw):
    return details_of(open_shards(tiny_raw))


@pytest.fixture(scope="module")
def tiny_tables(tiny_details):
    """The tables of the tiny dataset, as lists of rows by column name, by name and split."""
    tables = {}
    for name, rows in make_tables(UNIT_TABLE, tiny_details).items():
        listed = list(csv.DictReader(io.StringIO(render_csv(rows))))
        for split in ("train", "test"):
            tables[name, split] = [row for row in listed if row["split"] == split]
    return tables


@pytest.mark.parametrize("split", ["train", "test"])
def test_pixel_table_has_the_share_of_each_pixel_value(split, tiny_tables, tiny):
    pixels, _ = getattr(tiny, split)
    rows = tiny_tables["pixels", split]
    assert len(rows) == 3 * 256
    for index, channel in enumerate(("red", "green", "blue")):
        of_channel = [row for row in rows if row["channel"] == channel]
        assert [int(row["pixel"]) for row in of_channel] == list(range(256))
        shares = np.bincount(pixels[:, index].ravel(), minlength=256) * 100 / pixels[:, index].size
        assert [float(row["percent"]) for row in of_channel] == pytest.approx(shares, abs=1e-6)
        assert float(of_channel[51]["value"]) == pytest.approx(0.2)


def test_normalized_values_are_those_of_their_channel(tiny_details):
    table = UNIT_TABLE - np.array([[0], [1], [2]], dtype=np.float32)
    rows = make_tables(table, tiny_details)["pixels"]
    values = {channel: value for split, channel, pixel, value, _ in rows if (split, pixel) == ("test", 255)}
    assert values == {"red": 1, "green": 0, "blue": -1}


def test_histograms_have_the_share_of_images_by_bin(tiny_tables, tiny):
    train = tiny_tables["histograms", "train"]
    brightness = tiny.train[0].reshape(100, -1).mean(axis=1) / 255
    assert float(train[25]["brightness"]) == 0.51
    in_bin = (brightness >= 0.5) & (brightness < 0.52)
    assert float(train[25]["brightness_percent"]) == pytest.approx(np.sum(in_bin))
    contrast = tiny.test[0].reshape(20, -1).std(axis=1) / 255
    for row in tiny_tables["histograms", "test"]:
        in_bin = np.abs(contrast - float(row["contrast"])) < 0.005
        assert float(row["contrast_percent"]) == pytest.approx(5 * in_bin.sum())


def test_columns_are_the_same_for_any_splits_and_channels(tmp_path):
    images = {"train": make_images(20), "val": make_images(4, seed=1), "test": make_images(10, seed=2)}
    colour = write_raw_set(tmp_path / "colour", **images)
    grey = write_raw_set(tmp_path / "grey", make_images(5)[:, :1])
    for raw, splits, channels in (
        (colour, ["train", "val", "test"], ["red", "green", "blue"]),
        (grey, ["train"], ["band_0"]),
    ):
        tables = make_tables(UNIT_TABLE[: len(channels)], details_of(raw))
        assert [rows[0] for rows in tables.values()] == [
            ("split", "channel", "pixel", "value", "percent"),
            ("split", "brightness", "brightness_percent", "contrast", "contrast_percent"),
        ]
        assert list(dict.fromkeys(row[:2] for row in tables["pixels"][1:])) == [
            (split, channel) for split in splits for channel in channels
        ]
        assert list(dict.fromkeys(row[0] for row in tables["histograms"][1:])) == splits


def test_metrics_are_those_of_all_normalized_values(tiny_raw, tiny_details, tiny):
    manifest = open_shards(tiny_raw).manifest
    table = UNIT_TABLE * np.array([[1], [2], [4]], dtype=np.float32) - np.float32(0.5)
    metrics = make_metrics(manifest, compute_figures(tiny_details, table))
    train, test = (
        np.stack([table[index][pixels[:, index]] for index in range(3)]).astype(np.float64)
        for pixels, _ in (tiny.train, tiny.test)
    )
    assert metrics["train"] == pytest.approx(
        {"mean": train.mean(), "std": train.std(), "min": train.min(), "max": train.max()}, abs=1e-6
    )
    assert metrics["test"] == pytest.approx({"mean": test.mean(), "std": test.std()}, abs=1e-6)
    assert metrics["shards_mb"] == round(manifest.num_bytes / 1e6, 1)
    assert list(metrics) == ["train", "test", "shards_mb"]


def test_mean_that_rounds_to_zero_has_no_sign(tiny_raw):
    figures = {"train": {"grey": ValueFigures(min=-1, max=1, mean=-1e-9, std=1)}}
    assert str(make_metrics(open_shards(tiny_raw).manifest, figures)["train"]) == (
        "{'mean': 0.0, 'std': 1.0, 'min': -1.0, 'max': 1.0}"
    )


def test_percent_is_the_share_of_the_sum():
    assert percent([1, 0, 3]).tolist() == [25, 0, 75]
