import csv
import io
from typing import Any

import numpy as np
import pytest

from pipeline.audit.near_duplicates import MAX_DISTANCE, NearDuplicate
from pipeline.audit.survey import survey_splits
from pipeline.report.tables import DISTANCES, Band, count_by_distance, make_metrics, make_tables, percent, render_csv
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, write_raw_set

UNIT_TABLE = np.tile(np.arange(256, dtype=np.float32) / np.float32(255), (3, 1))


@pytest.fixture(scope="module")
def tiny_tables(tiny_raw):
    """The tables of the tiny dataset, as lists of rows by column name."""
    raw = open_shards(tiny_raw)
    tables = make_tables(raw.manifest, UNIT_TABLE, survey_splits(raw, UNIT_TABLE), near=[])
    return {name: list(csv.DictReader(io.StringIO(render_csv(rows)))) for name, rows in tables.items()}


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory):
    """A raw shard set of three splits, with two classes that alternate."""
    images = {"train": make_images(20), "val": make_images(4, seed=1), "test": make_images(10, seed=2)}
    return write_raw_set(tmp_path_factory.mktemp("tables") / "raw", **images)


def near(split, index, train, distance):
    return NearDuplicate(split=split, index=index, train=train, distance=distance, mirrored=False)


# Samples and classes: an odd index is of class_1, an even one of class_0.
NEAR = [near("val", 0, 2, 0.05), near("val", 0, 3, 0.35), near("test", 1, 3, 0.1), near("test", 2, 3, 0.25)]


def test_pixel_table_has_the_share_of_each_pixel_value(tiny_tables, tiny):
    rows = tiny_tables["pixels"]
    assert [int(row["pixel"]) for row in rows] == list(range(256))
    for split, (pixels, _) in (("train", tiny.train), ("test", tiny.test)):
        for index, channel in enumerate(("red", "green", "blue")):
            shares = np.bincount(pixels[:, index].ravel(), minlength=256) * 100 / pixels[:, index].size
            assert [float(row[f"{channel}_{split}"]) for row in rows] == pytest.approx(shares)
            assert float(rows[51][f"{channel}_value"]) == pytest.approx(0.2)
        shares = np.bincount(pixels.ravel(), minlength=256) * 100 / pixels.size
        assert [float(row[f"all_{split}"]) for row in rows] == pytest.approx(shares)


def test_image_table_has_the_share_of_images_by_bin(tiny_tables, tiny):
    rows = tiny_tables["images"]
    brightness = tiny.train[0].reshape(100, -1).mean(axis=1) / 255
    assert float(rows[25]["brightness"]) == 0.51
    assert float(rows[25]["brightness_train"]) == pytest.approx(np.sum((brightness >= 0.5) & (brightness < 0.52)))
    contrast = tiny.test[0].reshape(20, -1).std(axis=1) / 255
    for row in rows:
        in_bin = np.abs(contrast - float(row["contrast"])) < 0.005
        assert float(row["contrast_test"]) == pytest.approx(5 * in_bin.sum())


def test_class_table_has_the_samples_of_each_class(tiny_tables, tiny):
    rows = tiny_tables["classes"]
    assert [row["class"] for row in rows][:2] == ["airplane", "automobile"]
    for split, (_, labels) in (("train", tiny.train), ("test", tiny.test)):
        assert [int(row[split]) for row in rows] == np.bincount(labels, minlength=10).tolist()


def test_tables_have_columns_for_each_split(three_splits):
    surveys = survey_splits(three_splits, UNIT_TABLE)
    tables = make_tables(three_splits.manifest, UNIT_TABLE, surveys, NEAR)
    headers = {name: render_csv(rows).splitlines()[0] for name, rows in tables.items()}
    colours = [f"{name}_{key}" for name in ("red", "green", "blue") for key in ("value", "train", "val", "test")]
    assert headers == {
        "pixels": ",".join(["pixel", *colours, "all_train", "all_val", "all_test"]),
        "images": "brightness,brightness_train,brightness_val,brightness_test,"
        "contrast,contrast_train,contrast_val,contrast_test",
        "classes": "class,train,val,test",
        "near_duplicates": "split,index,train,distance",
    }


def test_near_duplicates_are_listed_by_split_and_index(three_splits):
    tables = make_tables(three_splits.manifest, UNIT_TABLE, survey_splits(three_splits, UNIT_TABLE), NEAR)
    assert render_csv(tables["near_duplicates"]) == (
        "split,index,train,distance\nval,0,2,0.05\nval,0,3,0.35\ntest,1,3,0.1\ntest,2,3,0.25\n"
    )


def test_bands_count_pairs_images_and_differing_labels(three_splits):
    assert count_by_distance(three_splits, NEAR) == [
        Band("val", 0.1, pairs=1, images=1, other_class=0),
        Band("val", 0.2, pairs=1, images=1, other_class=0),
        Band("val", 0.3, pairs=1, images=1, other_class=0),
        Band("val", MAX_DISTANCE, pairs=2, images=1, other_class=1),
        Band("test", 0.1, pairs=1, images=1, other_class=0),
        Band("test", 0.2, pairs=1, images=1, other_class=0),
        Band("test", 0.3, pairs=2, images=2, other_class=1),
        Band("test", MAX_DISTANCE, pairs=2, images=2, other_class=1),
    ]
    assert DISTANCES[-1] == MAX_DISTANCE


def test_metrics_have_the_widest_band_of_each_split(three_splits):
    surveys = survey_splits(three_splits, UNIT_TABLE)
    metrics: dict[str, Any] = make_metrics(surveys, {"train": 7}, count_by_distance(three_splits, NEAR))
    assert list(metrics) == ["train", "val", "test", "duplicates"]
    assert [metrics[split]["samples"] for split in ("train", "val", "test")] == [20, 4, 10]
    assert metrics["duplicates"] == {
        "exact": {"train": 7},
        "near": {
            "val": {"pairs": 2, "images": 1, "pairs_of_other_class": 1},
            "test": {"pairs": 2, "images": 2, "pairs_of_other_class": 1},
        },
    }


def test_train_alone_has_no_near_duplicates(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(5))
    assert count_by_distance(raw, []) == []
    assert make_metrics(survey_splits(raw, UNIT_TABLE), {}, [])["duplicates"] == {"exact": {}, "near": {}}


def test_csv_quotes_what_needs_it_and_ends_lines_with_lf():
    assert render_csv([("class", "train"), ("a,b", 1), ('c"d', 2.5)]) == 'class,train\n"a,b",1\n"c""d",2.5\n'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1"])
def test_csv_text_is_no_formula(text):
    assert render_csv([(text, -1.5)]) == f"'{text},-1.5\n"


def test_percent_is_the_share_of_the_sum():
    assert percent([1, 0, 3]).tolist() == [25, 0, 75]
