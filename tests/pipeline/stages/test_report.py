import hashlib
import json
import re
import shutil
from math import nextafter

import numpy as np
import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from pipeline.audit.details import load_details
from pipeline.report.page import render_page
from pipeline.report.proof import compute_figures, value_table
from pipeline.shards.writer import save_manifest
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.remedies import REPAIR_HINT
from pipeline.stages.report import AUDIT_HINT, REMAKE_HINT, write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from shardset.normalization import normalize_pixels
from shardset.shards import open_shards
from tests.helpers.html import html_texts
from tests.helpers.shard_sets import audit, make_images, make_params, read_images, report_on, write_raw_set

TABLES = {"histograms.csv", "pixels.csv"}
SPLITS = [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]
# One for each class of the tiny dataset.
ODD_NAMES = (
    "<b>airplane</b>",
    r"$\x$",  # TeX
    r"a|b\|c\\",
    "=1+1",
    "-",
    "*a* _b_ [c](d)",
    "&lt;",
    "~~a~~ `b`",
    '#010203 id="a_1" xlink:href',  # what is replaced in the SVG
    "数据 🐸",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny_audit(tiny_raw, tmp_path_factory):
    """What the audit of the tiny dataset wrote."""
    audit_dir = tmp_path_factory.mktemp("audit") / "audit"
    audit(tiny_raw, audit_dir)
    return audit_dir


@pytest.fixture
def report_on_tiny(tiny_raw, tiny_audit, tmp_path):
    """A function that normalizes the tiny dataset and reports on it."""
    write_stats(tiny_raw, tmp_path / "stats.json")

    def report(decimals=4, **changes):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params(**changes))
        write_report(tiny_raw, tiny_audit, tmp_path / "shards", tmp_path / "report", decimals)

    return report


def with_classes(source_dir, target_dir, *names):
    """Copy a shard set, with other names for its first classes."""
    shutil.copytree(source_dir, target_dir)
    manifest = open_shards(source_dir).manifest
    save_manifest(replace(manifest, classes=(*names, *manifest.classes[len(names) :])), target_dir)


def test_metrics_are_headlines_and_the_pages_show_the_details(report_on_tiny, tiny_audit, tiny, tmp_path):
    report_on_tiny(decimals=3)
    metrics = json.loads((tmp_path / "report/metrics.json").read_bytes())
    details = load_details(tiny_audit)
    figures = compute_figures(details.splits, value_table(open_shards(tmp_path / "shards")))
    values = np.concatenate([channel.ravel() for channel in read_images(open_shards(tmp_path / "shards"), "test")])
    expected = {"mean": values.mean(dtype=float), "std": values.std(dtype=float)}
    assert metrics["test"] == pytest.approx(expected, abs=1e-6)
    assert [*metrics] == ["train", "test", "shards_mb"]
    markdown, html = ((tmp_path / "report" / name).read_text() for name in ("report.md", "report.html"))
    for page in (markdown, html):
        assert tiny.content_sha256 in page
        assert f"{figures['test']['blue'].std:.3f}" in page
        assert f"{details.splits['test'].statistics.std['blue']:.3f}" in page
        assert "airplane" in page
        assert "-0.000" not in page
        assert not any(line != line.rstrip() for line in page.splitlines())
    assert html.count("<table") == html.count("</table>") > 2


@pytest.mark.parametrize("splits", SPLITS, ids="+".join)
def test_report_covers_one_to_three_splits(splits, tmp_path):
    images = {split: make_images(20 - 4 * seed, seed=seed) for seed, split in enumerate(splits)}
    copies = {split: np.concatenate([images["train"][[3]], images[split][1:]]) for split in splits[1:]}
    raw = write_raw_set(tmp_path / "raw", **(images | copies))
    report_dir = report_on(raw, tmp_path)
    markdown, page = ((report_dir / name).read_text() for name in ("report.md", "report.html"))
    samples = {split: len(of_split) for split, of_split in images.items()}
    assert set(json.loads((report_dir / "metrics.json").read_bytes())) == {*splits, "shards_mb"}
    for text in (markdown, page):
        visible = re.sub(
            'base64,[^"]*|<svg.*?</svg>|<style>.*?</style>|<script>.*?</script>', "", text, flags=re.DOTALL
        )
        # "validation set" is advice on any dataset.
        assert not set(re.findall(r"\b(val|test)\b", visible)) - {*splits}
        for split, count in samples.items():
            assert f"{count} {split}" in visible
    assert not markdown.endswith("\n\n")

    card = (tmp_path / "shards/README.md").read_text()
    assert re.findall("  - name: (train|val|test)$", card, re.MULTILINE) == list(splits)
    assert re.findall(r"^\| (train|val|test) \| (\d+) \|", card, re.MULTILINE) == [
        (split, str(count)) for split, count in samples.items()
    ]
    croissant = json.loads((tmp_path / "shards/croissant.json").read_bytes())
    described = [file["contentUrl"] for file in croissant["distribution"]]
    assert described == [file.path for file in open_shards(tmp_path / "shards").manifest.shard_files()]
    assert len(described) == 2 * len(splits)
    assert ", ".join(f"{count} {split}" for split, count in samples.items()) in croissant["description"]


@pytest.mark.slow
def test_same_data_gives_the_same_bytes_on_any_threads(report_on_tiny, tmp_path, monkeypatch):
    def pages(threads):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        report_on_tiny(samples_per_shard=7)
        return {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    first = pages("1")
    assert first == pages("1") == pages("3")
    assert set(first) == {"metrics.json", "report.html", "report.md", *TABLES}


@pytest.mark.parametrize(("shape", "num_classes"), [((1, 28, 28), 3), ((2, 5, 9), 2), ((3, 1, 1), 100)])
def test_any_shape_and_number_of_classes_is_reported(shape, num_classes, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", pixels[:40], pixels[40:], num_classes)
    page = (report_on(raw, tmp_path) / "report.html").read_text()
    assert all(name in page for name in raw.manifest.channels)


def test_class_names_are_escaped(tiny_raw, report_on_tiny, tmp_path):
    report_on_tiny()
    for name, source_dir in (("raw", tiny_raw), ("shards", tmp_path / "shards")):
        with_classes(source_dir, tmp_path / "named" / name, *ODD_NAMES)
    audit(tmp_path / "named/raw", tmp_path / "named/audit")
    raw_dir, audit_dir, shards_dir = (tmp_path / "named" / name for name in ("raw", "audit", "shards"))
    write_report(raw_dir, audit_dir, shards_dir, tmp_path / "report", 4)
    page, markdown = ((tmp_path / "report" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    in_page = "\n".join(html_texts(page))
    in_markdown = "\n".join(html_texts(MarkdownIt().enable(["table", "strikethrough"]).render(markdown)))
    for name in ODD_NAMES:
        assert name in in_page
        assert name in in_markdown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "key"), [("dataset", "mean"), ("dataset", "std"), ("dataset_per_image", "std_per_image")]
)
def test_statistics_off_by_one_bit_leave_the_old_report(scheme, key, tiny_raw, tiny_audit, report_on_tiny, tmp_path):
    report_on_tiny()
    stats_path = tmp_path / "stats.json"
    stats = json.loads(stats_path.read_bytes())
    stats[key]["green"] = nextafter(stats[key]["green"], 1)
    stats_path.write_text(json.dumps(stats))
    normalize_shards(tiny_raw, stats_path, tmp_path / "shards", make_params(scheme=scheme))
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with pytest.raises(CorruptDataError, match=r"stats\.json was not computed from this data") as failed:
        write_report(tiny_raw, tiny_audit, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


@pytest.mark.parametrize("set_name", ["raw", "shards"])
@pytest.mark.parametrize("name", ["train/images", "train/labels", "test/images", "test/labels"])
def test_damaged_shard_fails_the_report(set_name, name, tiny_raw, tiny_audit, tmp_path):
    shutil.copytree(tiny_raw, tmp_path / "raw")
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    path = tmp_path / set_name / f"{name}-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=rf"{path.name}: expected SHA-256") as failed:
        write_report(tmp_path / "raw", tiny_audit, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REPAIR_HINT)
    assert not (tmp_path / "report").exists()


def test_audit_of_other_data_fails_the_report(report_on_tiny, tiny_audit, tmp_path):
    report_on_tiny()
    raw = write_raw_set(tmp_path / "other", make_images(20), make_images(4, seed=1))
    with pytest.raises(CorruptDataError, match="other: the audit is of other data") as failed:
        write_report(raw.dir, tiny_audit, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(AUDIT_HINT)


@pytest.mark.parametrize("name", ["details.json", "near_duplicates.csv"])
def test_missing_part_of_the_audit_is_named(name, report_on_tiny, tiny_raw, tiny_audit, tmp_path):
    report_on_tiny()
    shutil.copytree(tiny_audit, tmp_path / "audit")
    (tmp_path / "audit" / name).unlink()
    with pytest.raises(CorruptDataError, match=f"audit/{name}: no such file") as failed:
        write_report(tiny_raw, tmp_path / "audit", tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(AUDIT_HINT)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("images", "test sample 19 differs from the normalized sample in "),
        ("labels", "the test labels are not those of "),
    ],
)
def test_wrong_content_with_right_hashes_fails_the_report(kind, message, tiny_raw, tiny_audit, tmp_path):
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    manifest = open_shards(tmp_path / "shards").manifest
    (shard,) = manifest.splits["test"].shards
    file = getattr(shard, kind)
    content = bytearray((tmp_path / "shards" / file.path).read_bytes())
    content[-8 if kind == "labels" else -1] ^= 1  # the last label, or the last value's highest byte
    (tmp_path / "shards" / file.path).write_bytes(content)
    forged = replace(shard, **{kind: replace(file, sha256=hashlib.sha256(content).hexdigest())})
    splits = manifest.splits | {"test": replace(manifest.splits["test"], shards=(forged,))}
    save_manifest(replace(manifest, splits=splits), tmp_path / "shards")
    with pytest.raises(CorruptDataError, match=message) as failed:
        write_report(tiny_raw, tiny_audit, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("replaced", ["raw", "shards"])
def test_set_replaced_during_the_run_leaves_no_report(replaced, tmp_path, monkeypatch):
    for name, seed in (("first", 0), ("second", 1)):
        raw = write_raw_set(tmp_path / name / "raw", make_images(20, seed=seed), make_images(4, seed=seed + 2))
        write_stats(raw.dir, tmp_path / name / "stats.json")
        normalize_shards(raw.dir, tmp_path / name / "stats.json", tmp_path / name / "shards", make_params())

        audit(raw.dir, tmp_path / name / "audit")

    def render_and_replace(*args):
        page = render_page(*args)
        (tmp_path / "first" / replaced).rename(tmp_path / "old")
        (tmp_path / "second" / replaced).rename(tmp_path / "first" / replaced)
        return page

    monkeypatch.setattr("pipeline.stages.report.render_page", render_and_replace)
    raw_dir, audit_dir, shards_dir = (tmp_path / "first" / name for name in ("raw", "audit", "shards"))
    with pytest.raises(CorruptDataError, match=f"{replaced}: was replaced by another set while it was being read"):
        write_report(raw_dir, audit_dir, shards_dir, tmp_path / "report", 4)
    assert not (tmp_path / "report").exists()


def test_wrong_arithmetic_fails_the_report(tiny_raw, tiny_audit, tmp_path, monkeypatch):
    """A build of numpy whose division is off writes and checks the same wrong values. Their mean and std show it."""

    def normalize_wrongly(pixels, normalization, out):
        return np.multiply(normalize_pixels(pixels, normalization, out), np.float32(1.0001), out=out)

    for module in ("shardset.normalization", "pipeline.shards.normalized"):
        monkeypatch.setattr(f"{module}.normalize_pixels", normalize_wrongly)
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    with pytest.raises(CorruptDataError, match="expected the normalized train split to have mean 0 and std 1"):
        write_report(tiny_raw, tiny_audit, tmp_path / "shards", tmp_path / "report", 4)
    assert not (tmp_path / "report").exists()


def test_shards_that_are_not_normalized_fail_the_report(tiny_raw, tiny_audit, tmp_path):
    with pytest.raises(CorruptDataError, match="was not made from .* by normalize") as failed:
        write_report(tiny_raw, tiny_audit, tiny_raw, tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
