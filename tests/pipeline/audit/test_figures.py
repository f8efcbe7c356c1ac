import csv

import numpy as np
import pytest
from msgspec import to_builtins

from pipeline.audit.details import load_details
from pipeline.audit.figures import NUM_BINS, headline_figures, image_rows, make_details, summarize
from pipeline.audit.lists import LeftOut
from pipeline.audit.pairs import Pair
from pipeline.numerics.statistics import compute_statistics
from pipeline.runtime.files import render_csv
from pipeline.runtime.tasks import map_tasks
from shardset.errors import CorruptDataError
from shardset.models import render_json
from tests.helpers.audits import NOTHING_LEFT_OUT, list_with, survey_set
from tests.helpers.shard_sets import make_images, read_images, write_raw_set


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A raw set of three splits, its surveys, exact pairs and listed pairs."""
    images = {split: make_images(count, seed=count) for split, count in (("train", 30), ("val", 8), ("test", 12))}
    images["train"][1], images["train"][2], images["train"][3, :, :, ::2], images["train"][3, :, :, 1::2] = (
        0,
        255,
        0,
        255,
    )
    images["train"][20] = images["train"][9]
    images["test"][4] = images["test"][7] = images["train"][9]
    raw = write_raw_set(tmp_path_factory.mktemp("figures") / "raw", num_classes=3, **images)
    surveys, digests = survey_set(raw)
    near = [
        Pair("test", 5, "train", 0, 0.25, mirrored=True),
        Pair("test", 5, "train", 10, 0.15, mirrored=False),
        Pair("val", 2, "train", 0, 0.05, mirrored=False),
        Pair("test", 5, "val", 2, 0.31, mirrored=False),
    ]
    return raw, surveys, *list_with(raw, digests, near)


@pytest.fixture(scope="module")
def details(audited):
    return make_details(*audited, left_out=LeftOut(7, 2))


def test_details_describe_each_split(audited, details):
    raw, surveys, *_ = audited
    assert list(details.splits) == ["train", "val", "test"]
    assert (details.content_sha256, details.searched) == (raw.manifest.content_sha256, True)
    assert (details.ignored, details.ignored_conflicts) == (7, 2)
    for split, of in details.splits.items():
        pixels, labels = read_images(raw, split), raw.labels(split)
        assert of.samples == len(pixels)
        assert of.statistics == compute_statistics(raw, split, map_tasks)
        assert of.pixel_counts["green"] == tuple(np.bincount(pixels[:, 1].ravel(), minlength=256).tolist())
        for name, spread in (("brightness", of.brightness), ("contrast", of.contrast)):
            values = getattr(surveys[split], name)
            assert (spread.min, spread.max) == (values.min(), values.max())
            assert spread.mean == pytest.approx(values.mean(), rel=1e-12)
        for label, (name, of_class) in enumerate(of.classes.items()):
            chosen = pixels[labels == label]
            assert name == f"class_{label}"
            assert of_class.samples == len(chosen)
            assert of_class.mean_color == pytest.approx(chosen.mean(axis=(0, 2, 3)) / 255, rel=1e-12)
            assert of_class.brightness == pytest.approx(chosen.mean() / 255, rel=1e-12)


def test_leaks_twins_and_duplicates_are_counted(details):
    train, val, test = details.splits.values()
    assert [(of.leaked, of.twins) for of in (train, val, test)] == [(0, 1), (1, 0), (3, 1)]
    assert [of.exact_duplicates for of in (train, val, test)] == [1, 0, 1]
    assert [of.exact_in for of in (train, val, test)] == [{}, {"train": 0}, {"train": 2, "val": 0}]
    assert [(of.leaked, of.twins) for of in test.classes.values()] == [(0, 0), (2, 1), (1, 0)]


def test_bands_count_pairs_within_a_distance(details):
    bands = {(band.split, band.other_split, band.distance): band for band in details.bands}
    assert [bands["test", "train", distance].pairs for distance in (0.1, 0.2, 0.3)] == [2, 3, 4]
    assert [bands["test", "train", distance].images for distance in (0.1, 0.2, 0.3)] == [2, 3, 3]
    # Labels are the index modulo 3: 4 and 9 differ, as do 7 and 9, 5 and 10, 5 and 0.
    assert [bands["test", "train", distance].label_conflicts for distance in (0.1, 0.2, 0.3)] == [2, 3, 4]
    assert bands["test", "val", 0.3].pairs == 0
    assert bands["train", "train", 0.1].pairs == 1
    assert ("train", "test", 0.1) not in bands


def test_clusters_are_counted_with_their_images(details):
    assert details.clusters == 2
    assert details.largest_cluster == 4  # both are of four: train 9 and 20, test 4 and 7; test 5, val 2, train 0 and 10


def test_headline_figures_are_few(audited, details):
    assert headline_figures(details, *audited[2:]) == {
        "train": {"twins": 1},
        "val": {"leaked": 1, "leaked_percent": 12.5, "twins": 0},
        "test": {"leaked": 3, "leaked_percent": 25.0, "twins": 1},
        "exact_duplicates": 3,
        "near_duplicates": 8,
        "label_conflicts": details.label_conflicts,
        "clusters": 2,
    }
    assert summarize(details, audited[3]) == (
        f"8 pairs of near-duplicates, 1 leaked val images, 3 leaked test images, 1 train twins, "
        f"{details.label_conflicts} label conflicts"
    )


def test_histograms_count_every_image(audited, details):
    surveys = audited[1]
    for split, of in details.splits.items():
        for name, limit in (("brightness", 1), ("contrast", 0.5)):
            counts, _ = np.histogram(getattr(surveys[split], name), NUM_BINS, (0, limit))
            assert of.histograms[name] == tuple(counts.tolist())
    # The ends of both ranges: a black, a white and a striped image.
    assert (
        details.splits["train"].histograms["brightness"][0] == details.splits["train"].histograms["brightness"][-1] == 1
    )
    assert [details.splits["train"].histograms["contrast"][end] for end in (0, -1)] == [2, 1]


def test_each_image_has_a_row(audited):
    raw, surveys, _, pairs = audited
    rows = list(csv.DictReader(render_csv(image_rows(raw, surveys, pairs)).splitlines()))
    assert [(row["split"], int(row["index"])) for row in rows] == [
        (split, index) for split, survey in surveys.items() for index in range(len(survey.labels))
    ]
    by_image = {(row["split"], int(row["index"])): row for row in rows}
    assert by_image["train", 2] | {"nearest": ""} == {
        "split": "train",
        "index": "2",
        "label": "class_2",
        "brightness": "1.0",
        "contrast": "0.0",
        "grey": "1",
        "clipped": "1.0",
        "border": "1.0",
        "entropy": "0.0",
        "nearest": "",
    }
    nearest = {image: float(row["nearest"]) for image, row in by_image.items() if row["nearest"]}
    assert nearest == {
        ("train", 0): 0.05,
        ("train", 9): 0,
        ("train", 10): 0.15,
        ("train", 20): 0,
        ("val", 2): 0.05,
        ("test", 4): 0,
        ("test", 5): 0.15,
        ("test", 7): 0,
    }


def test_details_are_read_back(details, tmp_path):
    (tmp_path / "details.json").write_text(render_json(to_builtins(details)))
    assert load_details(tmp_path) == details


def test_class_without_samples_in_a_split_has_no_color(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(5), make_images(2, seed=1), num_classes=4)
    surveys, digests = survey_set(raw)
    details = make_details(raw, surveys, *list_with(raw, digests, []), NOTHING_LEFT_OUT)
    of_class = details.splits["test"].classes["class_3"]
    assert (of_class.samples, of_class.mean_color, of_class.brightness) == (0, None, None)
    assert (details.clusters, details.largest_cluster) == (0, 0)


@pytest.mark.parametrize("content", [None, b"{", b'{"searched": true}'])
def test_unusable_details_are_corrupt(content, tmp_path):
    if content:
        (tmp_path / "details.json").write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"details\.json: "):
        load_details(tmp_path)
