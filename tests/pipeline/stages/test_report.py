import base64
import csv
import dataclasses
import io
import json
import math
import re
import shutil
from fractions import Fraction

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace
from PIL import Image

from pipeline.audit.near_duplicates import NearDuplicate
from pipeline.audit.survey import NUM_BINS, _image_stds, _sum_pixels, survey_split
from pipeline.params import ReportParams
from pipeline.report.pictures import COLORS, draw_extremes, draw_means, draw_pairs, draw_samples, plot_images
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import check_unit_variance, write_report
from pipeline.stages.stats import compute_statistics, write_stats
from shardset.errors import CorruptDataError
from shardset.manifest import save_manifest
from shardset.shards import open_shards, write_shards
from tests.helpers.shard_sets import make_images, make_params, read_images, report_on, save_card, write_raw_set

PARAMS = ReportParams(decimals=4)


@pytest.fixture
def run(tiny_raw, tmp_path):
    """Normalize and report on the tiny dataset."""

    def report(decimals=4, **changes):
        write_stats(tiny_raw, tmp_path / "stats.json")
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params(**changes))
        return write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", ReportParams(decimals=decimals))

    return report


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("scheme", ["dataset", "dataset_per_image", "imagenet", "unit", "custom"])
def test_figures_are_those_of_the_values_on_disk(scheme, dtype, tiny_raw, run, tmp_path):
    figures = run(scheme=scheme, dtype=dtype, samples_per_shard=30)
    shards = open_shards(tmp_path / "shards")
    for split in ("train", "test"):
        before, after = figures[split].before, figures[split].after
        stats = compute_statistics(open_shards(tiny_raw), split)
        values = read_images(shards, split).astype(np.float64)
        if dtype == "uint8":
            mean, std = (
                np.reshape(v, (3, 1, 1))
                for v in (shards.manifest.normalization.mean, shards.manifest.normalization.std)
            )
            values = (values / 255 - mean) / std
        for index, channel in enumerate(("red", "green", "blue")):
            assert (before[channel].mean, before[channel].std) == (stats.mean[channel], stats.std[channel])
            assert before[channel].std_per_image == stats.std_per_image[channel]
            of_channel = values[:, index]
            of_images = of_channel.reshape(len(of_channel), -1)
            expected = {
                "min": of_channel.min(),
                "max": of_channel.max(),
                "mean": of_channel.mean(),
                "std": of_channel.std(),
                "mean_per_image": of_images.mean(axis=1).mean(),
                "std_per_image": of_images.std(axis=1).mean(),
            }
            for name, value in expected.items():
                assert getattr(after[channel], name) == pytest.approx(value, rel=1e-6, abs=1e-7), name


def test_mean_and_std_after_normalizing_are_exact(run, tmp_path):
    figures = run()
    red = read_images(open_shards(tmp_path / "shards"), "train")[:, 0].ravel().tolist()
    mean = sum(map(Fraction, red)) / len(red)
    variance = sum((Fraction(value) - mean) ** 2 for value in red) / len(red)
    assert figures["train"].after["red"].mean == float(mean)
    assert figures["train"].after["red"].std == pytest.approx(math.sqrt(variance), rel=1e-15)


def test_metrics_json_holds_all_figures_and_the_pages_show_them(run, tiny, tmp_path):
    figures = run(decimals=3)
    metrics = json.loads((tmp_path / "report/metrics.json").read_bytes())
    assert metrics["train"]["before"]["red"]["std"] == figures["train"].before["red"].std
    assert metrics["test"]["samples"] == 20
    assert list(figures["train"].classes.values()) == np.bincount(tiny.train[1], minlength=10).tolist()
    markdown, html = ((tmp_path / "report" / name).read_text() for name in ("report.md", "report.html"))
    for page in (markdown, html):
        assert tiny.content_sha256 in page
        assert f"{figures['test'].after['blue'].std:.3f}" in page
        assert "airplane" in page
        assert "-0.000" not in page
        assert not any(line != line.rstrip() for line in page.splitlines())
    assert html.count("<table>") == html.count("</table>") == 6
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)


def test_names_are_escaped_in_the_page(tiny_raw, run, tmp_path):
    run()
    for name in ("raw", "shards"):
        source = tiny_raw if name == "raw" else tmp_path / "shards"
        shutil.copytree(source, tmp_path / "named" / name)
        manifest = open_shards(source).manifest
        named = replace(manifest, classes=("<b>airplane</b>", *manifest.classes[1:]))
        save_manifest(named, tmp_path / "named" / name)
    save_card(open_shards(tmp_path / "named/shards"))
    write_report(tmp_path / "named/raw", tmp_path / "named/shards", tmp_path / "report", PARAMS)
    assert "&lt;b&gt;airplane" in (tmp_path / "report/report.html").read_text()


def test_the_same_data_give_the_same_bytes_on_any_number_of_threads(run, tmp_path, monkeypatch):
    def pages(threads):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        run(samples_per_shard=7)
        return {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    first = pages("1")
    assert first == pages("1") == pages("3")
    tables = {"classes.csv", "images.csv", "near_duplicates.csv", "pixels.csv"}
    assert set(first) == {"metrics.json", "report.html", "report.md", *tables}


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_say_how_often_each_pixel_and_each_kind_of_image_occurs(run, tiny, tmp_path):
    run(scheme="unit")
    pixels = read_csv(tmp_path / "report/pixels.csv")
    assert [int(row["pixel"]) for row in pixels] == list(range(256))
    for index, channel in enumerate(("red", "green", "blue")):
        shares = np.bincount(tiny.test[0][:, index].ravel(), minlength=256) * 100 / tiny.test[0][:, index].size
        assert [float(row[f"{channel}_test"]) for row in pixels] == pytest.approx(shares)
        assert float(pixels[51][f"{channel}_value"]) == pytest.approx(0.2)
    images = read_csv(tmp_path / "report/images.csv")
    brightness = tiny.train[0].reshape(100, -1).mean(axis=1) / 255
    assert float(images[25]["brightness"]) == 0.51
    assert float(images[25]["brightness_train"]) == pytest.approx(np.sum((brightness >= 0.5) & (brightness < 0.52)))
    contrast = tiny.test[0].reshape(20, -1).std(axis=1) / 255
    for row in images:
        here = np.abs(contrast - float(row["contrast"])) < 0.005
        assert float(row["contrast_test"]) == pytest.approx(5 * here.sum())
    classes = read_csv(tmp_path / "report/classes.csv")
    assert [int(row["train"]) for row in classes] == np.bincount(tiny.train[1], minlength=10).tolist()


def test_duplicates_are_counted_listed_and_shown(tmp_path):
    images = make_images(60)
    test = np.concatenate([images[[8]], images[[21]][..., ::-1], images[[33]], make_images(4, seed=1)])
    report_dir = report_on(write_raw_set(tmp_path / "raw", images, test), tmp_path)
    assert (report_dir / "near_duplicates.csv").read_text() == "test,train,distance\n0,8,0.0\n1,21,0.0\n2,33,0.0\n"
    assert json.loads((report_dir / "metrics.json").read_bytes())["duplicates"] == {
        "exact": {"train": 0, "test": 0, "test_in_train": 2},
        "near": {"pairs": 3, "test_images": 3, "pairs_of_other_class": 1},
    }
    page = (report_dir / "report.html").read_text()
    assert page.count('alt="Test image 1 beside train image 21"') == 1
    assert "| 0.1 | 3 | 3 | 42.86 | 1 |" in (report_dir / "report.md").read_text()


@pytest.mark.parametrize(("shape", "num_classes"), [((1, 28, 28), 3), ((2, 5, 9), 2), ((3, 1, 1), 100)])
def test_images_of_any_shape_and_number_of_classes_are_reported(shape, num_classes, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", pixels[:40], pixels[40:], num_classes)
    page = (report_on(raw, tmp_path) / "report.html").read_text()
    assert page.count("Mean image of class_") == min(num_classes, 40)
    assert page.count("<svg") == 2 * shape[0] + 3


def test_the_images_that_stand_out_are_those_of_least_and_most_brightness_and_contrast(tmp_path):
    pixels = np.random.default_rng(0).integers(100, 150, (40, 3, 8, 8), np.uint8)
    pixels[3], pixels[5], pixels[7, :, :4], pixels[7, :, 4:] = 9, 250, 0, 255
    raw = write_raw_set(tmp_path / "raw", pixels[:30], pixels[30:])
    text = (report_on(raw, tmp_path) / "report.md").read_text()
    for name, indices in (("darkest", "3, "), ("brightest", "5, "), ("flattest", "3, 5, "), ("most contrasted", "7, ")):
        assert f"| train | {name} | {indices}" in text


def decode(png):
    return np.array(Image.open(io.BytesIO(base64.b64decode(png.url.partition(",")[2]))))


@pytest.fixture
def surveyed(tmp_path):
    """Images of both splits, classes taking turns, with the survey of train."""
    train, test = make_images(21), make_images(6, seed=1)
    raw = write_raw_set(tmp_path / "raw", train, test)
    report_on(raw, tmp_path)
    return train, test, raw, survey_split(raw, open_shards(tmp_path / "shards"), "train")


def test_pictures_show_the_images_that_their_captions_name(surveyed):
    train, test, raw, survey = surveyed

    def show(*images):
        return [image.transpose(1, 2, 0).tolist() for image in images]

    for (name, png), of_name in zip(draw_means(survey), (train, train[::2], train[1::2]), strict=True):
        assert decode(png)[..., :3].tolist() == show(np.floor(of_name.mean(axis=0) + 0.5).astype(np.uint8))[0], name
    for name, indices, png in draw_extremes(raw, survey, "train"):
        shown = decode(png)[..., :3]
        assert [shown[:, 34 * i : 34 * i + 32].tolist() for i in range(8)] == show(*train[indices]), name
    pairs = [NearDuplicate(test=i, train=j, distance=0, mirrored=False) for i, j in ((4, 2), (5, 20))]
    for pair, picture in zip(pairs, draw_pairs(raw, pairs), strict=True):
        shown = decode(picture.png)[..., :3]
        assert [shown[:, :32].tolist(), shown[:, 34:].tolist()] == show(test[pair.test], train[pair.train])


def test_plots_are_drawn_of_the_figures(surveyed):
    *_, survey = surveyed
    for plot, name in zip(plot_images({"train": survey}), ("brightness", "contrast"), strict=True):
        path, *_ = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {COLORS["train"]}', plot.svg)
        x, y = np.array(re.findall(r"[ML] (\S+) (\S+)", path), float).T
        drawn = np.interp(np.linspace(x[0], x[-1], NUM_BINS), x, y)
        assert np.corrcoef(drawn, survey.histograms()[name])[0, 1] < -0.999  # y grows downwards


def test_no_settings_of_matplotlib_change_the_page(tmp_path):
    images = make_images(12)
    raw = write_raw_set(tmp_path / "raw", images, images)
    expected = (report_on(raw, tmp_path) / "report.html").read_bytes()
    with mpl.rc_context({"image.origin": "lower", "lines.linewidth": 9, "svg.fonttype": "path", "savefig.dpi": 300}):
        assert (report_on(raw, tmp_path) / "report.html").read_bytes() == expected


def test_names_of_classes_are_no_formulas(tiny_raw, run, tmp_path):
    run()
    for source in (tiny_raw, tmp_path / "shards"):
        shutil.copytree(source, tmp_path / "named" / source.name)
        manifest = open_shards(source).manifest
        save_manifest(
            replace(manifest, classes=(r"$\x$", "a|b", *manifest.classes[2:])), tmp_path / "named" / source.name
        )
    save_card(open_shards(tmp_path / "named/shards"))
    write_report(tmp_path / "named/raw", tmp_path / "named/shards", tmp_path / "report", PARAMS)
    assert r"$\x$" in (tmp_path / "report/report.html").read_text()
    assert r"| a\|b | " in (tmp_path / "report/report.md").read_text()


def test_pictures_are_the_images_before_and_after_normalizing(tmp_path):
    pixels = np.zeros((4, 1, 2, 2), np.uint8)
    pixels[0, 0, 0] = 255
    raw = write_raw_set(tmp_path / "raw", pixels, pixels, num_classes=1)
    ((name, before, after),) = draw_samples(raw, np.linspace(-2, 2, 256, dtype=np.float32)[None])
    assert (name, before.width, before.height) == ("class_0", 4 * 2 + 3 * 2, 2)
    assert before == after
    shown = decode(before)
    assert shown[:, 0].tolist() == [[255, 255, 255, 255], [0, 0, 0, 255]]
    assert shown[0, 2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("scheme", "key"), [("dataset", "mean"), ("dataset", "std"), ("dataset_per_image", "std_per_image")]
)
def test_statistics_that_are_off_by_one_bit_fail_the_report(scheme, key, tiny_raw, run, tmp_path):
    run()
    stats_path = tmp_path / "stats.json"
    stats = json.loads(stats_path.read_bytes())
    stats[key]["green"] = math.nextafter(stats[key]["green"], 1)
    stats_path.write_text(json.dumps(stats))
    normalize_shards(tiny_raw, stats_path, tmp_path / "shards", make_params(scheme=scheme))
    before = (tmp_path / "report/report.md").read_bytes()
    with pytest.raises(CorruptDataError, match=r"data/stats.json was not that of this data"):
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", PARAMS)
    assert (tmp_path / "report/report.md").read_bytes() == before


def test_a_train_split_whose_mean_or_std_is_off_fails_the_report(run, tmp_path):
    train = run()["train"]
    off = dataclasses.replace(train.after["green"], std=1.00001)
    with pytest.raises(CorruptDataError, match=r"mean 0 and std 1 .* in channel green"):
        check_unit_variance(open_shards(tmp_path / "shards"), dataclasses.replace(train, after={"green": off}))


def test_a_damaged_shard_fails_the_report(tiny_raw, run, tmp_path):
    run()
    path = tmp_path / "shards/test/images-00000-of-00001.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(CorruptDataError, match="images-00000-of-00001.npy: expected SHA-256"):
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", PARAMS)


@pytest.mark.parametrize("fault", ["a value", "a label", "a missing sample"])
def test_what_normalize_got_wrong_fails_the_report_even_under_a_right_hash(fault, tiny_raw, run, tmp_path):
    run(scheme="unit")
    shards = open_shards(tmp_path / "shards")
    images = {split: read_images(shards, split).copy() for split in ("train", "test")}
    labels = {split: shards.labels(split) for split in images}
    if fault == "a value":
        images["test"][7, 1, 2, 3] = np.nextafter(images["test"][7, 1, 2, 3], np.float32(2))
    elif fault == "a label":
        labels["test"][[0, 1]] = 3, 4
    else:
        labels["test"] = labels["test"][:-1]
    shutil.rmtree(tmp_path / "shards")
    (tmp_path / "shards").mkdir()
    splits = write_shards(
        tmp_path / "shards",
        labels,
        lambda split, start, stop: [images[split][start:stop]],
        dtype="float32",
        image_shape=(3, 32, 32),
        samples_per_shard=50,
    )
    save_manifest(replace(shards.manifest, splits=splits), tmp_path / "shards")
    save_card(open_shards(tmp_path / "shards"))
    message = "test sample 7 is not" if fault == "a value" else "the test labels are not"
    with pytest.raises(CorruptDataError, match=message):
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", PARAMS)


def test_a_content_hash_that_is_not_that_of_the_pixels_fails_the_report(tiny_raw, run, tmp_path):
    run()
    for name, source in (("raw", tiny_raw), ("shards", tmp_path / "shards")):
        shutil.copytree(source, tmp_path / "wrong" / name)
        save_manifest(replace(open_shards(source).manifest, content_sha256="0" * 64), tmp_path / "wrong" / name)
    with pytest.raises(CorruptDataError, match=r"raw/manifest.json: content_sha256: expected 0{64}, the shards have"):
        write_report(tmp_path / "wrong/raw", tmp_path / "wrong/shards", tmp_path / "report", PARAMS)


def test_shards_that_are_not_normalized_fail_the_report(tiny_raw, tmp_path):
    with pytest.raises(CorruptDataError, match="was not made from .* by normalize"):
        write_report(tiny_raw, tiny_raw, tmp_path / "report", PARAMS)


def test_shards_of_another_dataset_fail_the_report(synthetic_raw, run, tmp_path):
    run()
    with pytest.raises(CorruptDataError, match="was not made from"):
        write_report(synthetic_raw, tmp_path / "shards", tmp_path / "report", PARAMS)


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70)), elements=st.floats(-9, 9)
    )
)
def test_sums_by_halves_are_sums(values):
    sums = _sum_pixels(values)
    stds = _image_stds(values)
    for index in np.ndindex(sums.shape):
        assert sums[index] == pytest.approx(math.fsum(values[index]), abs=1e-12)
        assert stds[index] == pytest.approx(values[index].std(), abs=1e-12)


def test_a_normalized_set_does_not_pass_for_raw(run, tmp_path):
    run()
    with pytest.raises(CorruptDataError, match="expected uint8 pixels that were not normalized, got float32"):
        write_stats(tmp_path / "shards", tmp_path / "other.json")
    with pytest.raises(CorruptDataError, match="expected uint8 pixels"):
        normalize_shards(tmp_path / "shards", tmp_path / "stats.json", tmp_path / "twice", make_params())
    with pytest.raises(CorruptDataError, match="expected uint8 pixels"):
        write_report(tmp_path / "shards", tmp_path / "shards", tmp_path / "report", PARAMS)
