import dataclasses
import json
import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

from pipeline.errors import CorruptDataError
from pipeline.manifest import save_manifest
from pipeline.normalize import normalize_shards
from pipeline.params import ReportParams
from pipeline.report import _image_stds, _sum_pixels, check_unit_variance, write_report
from pipeline.shards import open_shards, write_shards
from pipeline.stats import compute_statistics, write_stats
from tests.test_normalize import make_params, read_images

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
    assert html.count("<table>") == html.count("</table>") == 4
    assert "http" not in html


def test_names_are_escaped_in_the_page(tiny_raw, run, tmp_path):
    run()
    for name in ("raw", "shards"):
        source = tiny_raw if name == "raw" else tmp_path / "shards"
        shutil.copytree(source, tmp_path / "named" / name)
        manifest = open_shards(source).manifest
        named = replace(manifest, classes=("<b>airplane</b>", *manifest.classes[1:]))
        save_manifest(named, tmp_path / "named" / name)
    write_report(tmp_path / "named/raw", tmp_path / "named/shards", tmp_path / "report", PARAMS)
    assert "&lt;b&gt;airplane" in (tmp_path / "report/report.html").read_text()


def test_the_same_data_give_the_same_bytes(run, tmp_path):
    def pages():
        run()
        return {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    first = pages()
    assert first == pages()
    assert set(first) == {"metrics.json", "report.html", "report.md"}


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
    message = (
        "test/images-00000-of-00001.npy: samples 0 to 19 are not" if fault == "a value" else "the test labels are not"
    )
    with pytest.raises(CorruptDataError, match=message):
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", PARAMS)


def test_a_content_hash_that_is_not_that_of_the_pixels_fails_the_report(tiny_raw, run, tmp_path):
    run()
    for name, source in (("raw", tiny_raw), ("shards", tmp_path / "shards")):
        shutil.copytree(source, tmp_path / "wrong" / name)
        save_manifest(replace(open_shards(source).manifest, content_sha256="0" * 64), tmp_path / "wrong" / name)
    with pytest.raises(CorruptDataError, match=r"raw/manifest.json: content_sha256: expected 0{64}, the shards have"):
        write_report(tmp_path / "wrong/raw", tmp_path / "wrong/shards", tmp_path / "report", PARAMS)


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
