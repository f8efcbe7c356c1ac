import csv
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from math import nextafter

import matplotlib as mpl
import numpy as np
import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.survey import survey_splits
from pipeline.report.proof import value_table
from pipeline.shards.writer import save_manifest
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.remedies import REPAIR_HINT
from pipeline.stages.report import REMAKE_HINT, write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from shardset.normalization import normalize_pixels
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, make_params, report_on, write_raw_set

TABLES = {"classes.csv", "images.csv", "near_duplicates.csv", "pixels.csv"}
SPLITS = [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]
# One for each class of the tiny dataset.
ODD_NAMES = (
    "<b>airplane</b>",
    r"$\x$",  # matplotlib would take it for a formula
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


@pytest.fixture
def report_on_tiny(tiny_raw, tmp_path):
    """A function that normalizes the tiny dataset and reports on it."""
    write_stats(tiny_raw, tmp_path / "stats.json")

    def report(decimals=4, **changes):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params(**changes))
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", decimals)

    return report


def with_classes(source_dir, target_dir, *names):
    """Copy a shard set, with other names for its first classes."""
    shutil.copytree(source_dir, target_dir)
    manifest = open_shards(source_dir).manifest
    save_manifest(replace(manifest, classes=(*names, *manifest.classes[len(names) :])), target_dir)


def html_texts(page):
    """The text of each element of a page."""
    texts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = texts.append  # type: ignore[assignment, method-assign]
    parser.feed(page)
    parser.close()
    return texts


@pytest.mark.slow
def test_metrics_hold_all_figures_and_the_pages_show_them(report_on_tiny, tiny_raw, tiny, tmp_path):
    report_on_tiny(decimals=3)
    metrics = json.loads((tmp_path / "report/metrics.json").read_bytes())
    surveys = survey_splits(open_shards(tiny_raw), value_table(open_shards(tmp_path / "shards")))
    for split, survey in surveys.items():
        for channel in ("red", "green", "blue"):
            assert metrics[split]["before"][channel] == vars(survey.figures.before[channel])
            assert metrics[split]["after"][channel] == vars(survey.figures.after[channel])
        assert metrics[split]["brightness"] == vars(survey.figures.brightness)
        assert metrics[split]["contrast"] == vars(survey.figures.contrast)
    assert [metrics[split]["samples"] for split in ("train", "test")] == [100, 20]
    assert list(metrics["train"]["classes"].values()) == np.bincount(tiny.train[1], minlength=10).tolist()
    markdown, html = ((tmp_path / "report" / name).read_text() for name in ("report.md", "report.html"))
    for page in (markdown, html):
        assert tiny.content_sha256 in page
        assert f"{metrics['test']['after']['blue']['std']:.3f}" in page
        assert "airplane" in page
        assert "-0.000" not in page
        assert not any(line != line.rstrip() for line in page.splitlines())
    assert html.count("<table>") == html.count("</table>") == 6
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)


@pytest.mark.parametrize("splits", SPLITS, ids="+".join)
def test_report_covers_one_to_three_splits(splits, tmp_path):
    images = {split: make_images(20 - 4 * seed, seed=seed) for seed, split in enumerate(splits)}
    copies = {split: np.concatenate([images["train"][[3]], images[split][1:]]) for split in splits[1:]}
    raw = write_raw_set(tmp_path / "raw", **(images | copies))
    report_dir = report_on(raw, tmp_path)
    markdown, page = ((report_dir / name).read_text() for name in ("report.md", "report.html"))
    metrics = json.loads((report_dir / "metrics.json").read_bytes())
    samples = {split: len(of_split) for split, of_split in images.items()}

    assert list(metrics) == [*splits, "duplicates"]
    assert {split: metrics[split]["samples"] for split in splits} == samples
    pairs = [f"{later}_in_{earlier}" for later in splits for earlier in splits[: splits.index(later)]]
    assert metrics["duplicates"]["exact"].keys() == {*splits, *pairs}
    assert all(metrics["duplicates"]["exact"][pair] == 1 for pair in pairs)
    assert metrics["duplicates"]["near"] == {
        split: {"pairs": 1, "images": 1, "pairs_of_other_class": 1} for split in splits[1:]
    }
    listed = [f"{split},0,3,0.0" for split in splits[1:]]
    assert (report_dir / "near_duplicates.csv").read_text().splitlines() == ["split,index,train,distance", *listed]
    assert (report_dir / "classes.csv").read_text().splitlines()[0] == ",".join(["class", *splits])

    summary = ", ".join(f"{count} {split}" for split, count in samples.items())
    assert f"| samples | {summary} |" in markdown
    assert f"<dt>samples</dt><dd>{summary}</dd>" in page
    assert re.findall("^## (train|val|test)$", markdown, re.MULTILINE) == list(splits)
    assert re.findall("<h3>(train|val|test)</h3>", page) == list(splits)
    assert f"| class | {' | '.join(splits)} |" in markdown
    for split in splits:
        assert f"| {split} | darkest | " in markdown
        assert f'alt="The darkest images of {split}"' in page
        assert f"| {split} images equal to an earlier one | 0 |" in markdown
    for split in splits[1:]:
        assert f"| {split} | 0.35 | 1 | 1 | {100 / samples[split]:.2f} | 1 |" in markdown
        assert f"{split} images equal to a train image" in page
        assert f'alt="{split} image 0 and train image 3"' in page
    for text in (markdown, page):
        assert ("near_duplicates.csv" in text) == (len(splits) > 1)
        assert not set(re.findall(r"\b(val|test)\b", re.sub('base64,[^"]*|<svg.*?</svg>', "", text))) - {*splits}
    assert not markdown.endswith("\n\n")
    # Each plot has a legend entry for each split.
    plots = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 2 * 3 + 3
    assert all(re.findall(r">(train|val|test)</text>", plot) == list(splits) for plot in plots)

    card = (tmp_path / "shards/README.md").read_text()
    assert re.findall("  - name: (train|val|test)$", card, re.MULTILINE) == list(splits)
    assert re.findall(r"^\| (train|val|test) \| (\d+) \|", card, re.MULTILINE) == [
        (split, str(count)) for split, count in samples.items()
    ]
    croissant = json.loads((tmp_path / "shards/croissant.json").read_bytes())
    described = [file["contentUrl"] for file in croissant["distribution"]]
    assert described == [file.path for file in open_shards(tmp_path / "shards").manifest.shard_files()]
    assert len(described) == 2 * len(splits)
    assert summary in croissant["description"]


@pytest.mark.slow
def test_same_data_gives_the_same_bytes_on_any_threads(report_on_tiny, tmp_path, monkeypatch):
    def pages(threads):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        report_on_tiny(samples_per_shard=7)
        return {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    first = pages("1")
    assert first == pages("1") == pages("3")
    assert set(first) == {"metrics.json", "report.html", "report.md", *TABLES}


@pytest.mark.slow
def test_matplotlib_settings_do_not_change_the_page(tmp_path):
    images = make_images(12)
    raw = write_raw_set(tmp_path / "raw", images, images)
    expected = (report_on(raw, tmp_path) / "report.html").read_bytes()
    with mpl.rc_context({"image.origin": "lower", "lines.linewidth": 9, "svg.fonttype": "path", "savefig.dpi": 300}):
        assert (report_on(raw, tmp_path) / "report.html").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "num_classes"), [((1, 28, 28), 3), ((2, 5, 9), 2), ((3, 1, 1), 100)])
def test_any_shape_and_number_of_classes_is_reported(shape, num_classes, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", pixels[:40], pixels[40:], num_classes)
    page = (report_on(raw, tmp_path) / "report.html").read_text()
    assert page.count("Mean image of class_") == min(num_classes, 40)
    assert page.count("<svg") == 2 * shape[0] + 3


def test_images_that_stand_out_are_listed(tmp_path):
    pixels = np.random.default_rng(0).integers(100, 150, (40, 3, 8, 8), np.uint8)
    pixels[3], pixels[5], pixels[7, :, :4], pixels[7, :, 4:] = 9, 250, 0, 255
    raw = write_raw_set(tmp_path / "raw", pixels[:30], pixels[30:])
    text = (report_on(raw, tmp_path) / "report.md").read_text()
    for name, indices in (
        ("darkest", "3, "),
        ("brightest", "5, "),
        ("lowest contrast", "3, 5, "),
        ("highest contrast", "7, "),
    ):
        assert f"| train | {name} | {indices}" in text


def test_duplicates_are_counted_listed_and_shown(tmp_path):
    images = make_images(60)
    test = np.concatenate([images[[8]], images[[21]][..., ::-1], images[[33]], make_images(4, seed=1)])
    report_dir = report_on(write_raw_set(tmp_path / "raw", images, test), tmp_path)
    rows = (report_dir / "near_duplicates.csv").read_text().splitlines()
    assert rows == ["split,index,train,distance", "test,0,8,0.0", "test,1,21,0.0", "test,2,33,0.0"]
    assert json.loads((report_dir / "metrics.json").read_bytes())["duplicates"] == {
        "exact": {"train": 0, "test": 0, "test_in_train": 2},
        "near": {"test": {"pairs": 3, "images": 3, "pairs_of_other_class": 1}},
    }
    page = (report_dir / "report.html").read_text()
    assert page.count('alt="test image 1 and train image 21"') == 1
    assert "test 1, train 21, 0.0000, mirrored<br>class_1</figcaption>" in page
    assert "| test | 0.1 | 3 | 3 | 42.86 | 1 |" in (report_dir / "report.md").read_text()


def test_class_names_are_escaped(tiny_raw, report_on_tiny, tmp_path):
    report_on_tiny()
    for name, source_dir in (("raw", tiny_raw), ("shards", tmp_path / "shards")):
        with_classes(source_dir, tmp_path / "named" / name, *ODD_NAMES)
    write_report(tmp_path / "named/raw", tmp_path / "named/shards", tmp_path / "report", 4)
    page, markdown, table = (
        (tmp_path / "report" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md", "classes.csv")
    )
    in_page, in_markdown = (
        html_texts(page),
        html_texts(MarkdownIt().enable(["table", "strikethrough"]).render(markdown)),
    )
    for name in ODD_NAMES:
        assert in_page.count(name) == 4  # samples, mean images, the table and the plot
        assert in_markdown.count(name) == 1
    escaped = {"=1+1": "'=1+1", "-": "'-"}
    names = [row["class"] for row in csv.DictReader(io.StringIO(table))]
    assert names == [escaped.get(name, name) for name in ODD_NAMES]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "key"), [("dataset", "mean"), ("dataset", "std"), ("dataset_per_image", "std_per_image")]
)
def test_statistics_off_by_one_bit_leave_the_old_report(scheme, key, tiny_raw, report_on_tiny, tmp_path):
    report_on_tiny()
    stats_path = tmp_path / "stats.json"
    stats = json.loads(stats_path.read_bytes())
    stats[key]["green"] = nextafter(stats[key]["green"], 1)
    stats_path.write_text(json.dumps(stats))
    normalize_shards(tiny_raw, stats_path, tmp_path / "shards", make_params(scheme=scheme))
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with pytest.raises(CorruptDataError, match=r"stats\.json was not computed from this data") as failed:
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


@pytest.mark.parametrize("set_name", ["raw", "shards"])
@pytest.mark.parametrize("name", ["train/images", "train/labels", "test/images", "test/labels"])
def test_damaged_shard_fails_the_report(set_name, name, tiny_raw, tmp_path):
    shutil.copytree(tiny_raw, tmp_path / "raw")
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    path = tmp_path / set_name / f"{name}-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=rf"{path.name}: expected SHA-256") as failed:
        write_report(tmp_path / "raw", tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REPAIR_HINT)
    assert not (tmp_path / "report").exists()


def test_wrong_content_hash_fails_the_report(tiny_raw, tmp_path):
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    for name, source in (("raw", tiny_raw), ("shards", tmp_path / "shards")):
        shutil.copytree(source, tmp_path / "wrong" / name)
        save_manifest(replace(open_shards(source).manifest, content_sha256="0" * 64), tmp_path / "wrong" / name)
    with pytest.raises(CorruptDataError, match=r"raw/manifest\.json: content_sha256: expected 0{64}, but the shards"):
        write_report(tmp_path / "wrong/raw", tmp_path / "wrong/shards", tmp_path / "report", 4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("images", "test sample 19 differs from the normalized sample in "),
        ("labels", "the test labels are not those of "),
    ],
)
def test_wrong_content_with_right_hashes_fails_the_report(kind, message, tiny_raw, tmp_path):
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
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("replaced", ["raw", "shards"])
def test_set_replaced_during_the_run_leaves_no_report(replaced, tmp_path, monkeypatch):
    for name, seed in (("first", 0), ("second", 1)):
        raw = write_raw_set(tmp_path / name / "raw", make_images(20, seed=seed), make_images(4, seed=seed + 2))
        write_stats(raw.dir, tmp_path / name / "stats.json")
        normalize_shards(raw.dir, tmp_path / name / "stats.json", tmp_path / name / "shards", make_params())

    def find_and_replace(raw):
        found = find_near_duplicates(raw)
        (tmp_path / "first" / replaced).rename(tmp_path / "old")
        (tmp_path / "second" / replaced).rename(tmp_path / "first" / replaced)
        return found

    monkeypatch.setattr("pipeline.stages.report.find_near_duplicates", find_and_replace)
    with pytest.raises(CorruptDataError, match=f"{replaced}: was replaced by another set while it was being read"):
        write_report(tmp_path / "first/raw", tmp_path / "first/shards", tmp_path / "report", 4)
    assert not (tmp_path / "report").exists()


def test_wrong_arithmetic_fails_the_report(tiny_raw, tmp_path, monkeypatch):
    """A build of numpy whose division is off writes and checks the same wrong values. Their mean and std show it."""

    def normalize_wrongly(pixels, normalization, out):
        return np.multiply(normalize_pixels(pixels, normalization, out), np.float32(1.0001), out=out)

    for module in ("shardset.normalization", "pipeline.shards.normalized"):
        monkeypatch.setattr(f"{module}.normalize_pixels", normalize_wrongly)
    write_stats(tiny_raw, tmp_path / "stats.json")
    normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())
    with pytest.raises(CorruptDataError, match="expected the normalized train split to have mean 0 and std 1"):
        write_report(tiny_raw, tmp_path / "shards", tmp_path / "report", 4)
    assert not (tmp_path / "report").exists()


def test_shards_that_are_not_normalized_fail_the_report(tiny_raw, tmp_path):
    with pytest.raises(CorruptDataError, match="was not made from .* by normalize") as failed:
        write_report(tiny_raw, tiny_raw, tmp_path / "report", 4)
    assert str(failed.value).endswith(REMAKE_HINT)
