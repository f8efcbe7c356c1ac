"""The figures in the README and the docs follow from results in this repository, so that neither changes alone."""

import json
import re

import pytest
import yaml

from pipeline.sources.fetch import RETRIES
from pipeline.sources.receive import DEFAULT_TIMEOUTS, MIN_BYTES
from pipeline.sources.registry import DATASETS
from tests.helpers.workspace import REPOSITORY
from tests.soak.fuzz import SHARES, VALUE_SHARES

README = (REPOSITORY / "README.md").read_text()


def read(name):
    """The text of a page, on one line, so that line breaks don't matter."""
    return re.sub(r"\s+", " ", (REPOSITORY / name).read_text())


@pytest.fixture(scope="module")
def results():
    """The tables of benchmarks/RESULTS.md: a column of a row, by the title of the section."""
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for section in (REPOSITORY / "benchmarks/RESULTS.md").read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0].partition(":")[0].strip("`")
        table = section.partition("\n### ")[0]
        lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
        columns, _, *rows = lines or ([], [])
        tables[title] = {}
        for row in rows:
            of_row = dict(zip(columns, row, strict=True))
            workers = of_row.get("workers", "0")
            tables[title][row[0] if workers == "0" else f"{row[0]}, {workers} workers"] = of_row
    return tables


def number(text):
    return float(text.replace(",", ""))


def seconds(results, stage, contender="ours"):
    return number(results[stage][contender]["seconds"])


@pytest.fixture(scope="module")
def epoch(results):
    """Samples per second by reader."""
    (title,) = [title for title in results if title.startswith("A shuffled epoch")]
    return {reader: number(row["samples/s"]) for reader, row in results[title].items()}


def test_readme_has_the_times_of_the_benchmarks(results, epoch):
    ours, limit, torchvision = (epoch[name] for name in ("ours, memory-mapped", "index_select", "torchvision"))
    slower = number(results["stats"]["tutorial"]["ratio to ours"])
    over_limit = 1 / number(results["normalize"]["limit"]["ratio to ours"])
    assert f"| `stats` | {seconds(results, 'stats'):.2f} s | {slower:.0f} times faster than" in README
    rival = number(results["stats"]["bincount_pairs"]["ratio to ours"])
    assert f"`ToTensor()` dataset; {rival:.1f} times as fast as `np.bincount` on threads |" in README
    assert f"| `normalize` | {seconds(results, 'normalize'):.2f} s | {over_limit:.1f} times as long as" in README
    assert f"| `audit` | {seconds(results, 'audit'):.0f} s |" in README
    assert (
        f"| {round(ours, -4):,.0f} samples/s | {ours / torchvision:.0f} times torchvision; {ours / limit:.0%}" in README
    )
    assert f"torchvision's samples bit for bit, {ours / torchvision:.0f} times faster" in README


def test_decisions_have_the_times_of_the_benchmarks(results, epoch):
    shards = read("docs/decisions/0005-npy-shards.md")
    ours, zarr, safetensors = (seconds(results, "normalize", name) for name in ("ours", "zarr", "safetensors"))
    streaming = sorted(seconds(results, "normalize", name) for name in ("litdata", "mds", "ffcv", "webdataset"))
    assert f"takes {ours:.2f} s, hashed and flushed to disk. zarr takes {zarr:.2f} s" in shards
    assert f"the streaming formats {streaming[0]:.1f} s to {streaming[-1]:.1f} s" in shards
    assert f"safetensors {safetensors:.2f} s without hashing or flushing" in shards
    mapped = epoch["ours, memory-mapped"]
    assert f"{round(mapped, -4):,.0f} samples/s" in shards
    assert f"{mapped / epoch['index_select']:.2f} times as fast as `index_select`" in shards
    assert f"{mapped / epoch['ffcv, 2 workers']:.1f} times as fast as FFCV" in shards
    assert f"`stats` takes {seconds(results, 'stats'):.2f} s in total" in read("docs/decisions/0002-msgspec.md")


def test_readme_has_the_sizes_of_the_lock():
    stages = yaml.safe_load((REPOSITORY / "dvc.lock").read_text())["stages"]
    sizes = {out["path"]: out["size"] / 1e6 for stage in stages.values() for out in stage["outs"]}
    for name in ("data/raw", "data/audit", "data/shards"):
        assert re.search(rf"^\| `{name}` .* \| {sizes[name]:.0f} MB \|", README, re.MULTILINE)
    assert re.search(rf"^\| `data/report` .* \| {sizes['data/report/report.html']:.0f} MB \|", README, re.MULTILINE)
    assert f"the download is {DATASETS['cifar10'].archive.num_bytes / 1e6:.0f} MB" in re.sub(r"\s+", " ", README)
    sizes_of_dtypes = f"float32 takes {sizes['data/shards']:.0f} MB, uint8 takes {sizes['data/raw']:.0f} MB"
    assert sizes_of_dtypes in read("docs/decisions/0005-npy-shards.md")


def test_variance_of_pixels_divided_by_the_per_image_std():
    stats = json.loads((REPOSITORY / "data/stats.json").read_bytes())
    pixels = 32 * 32
    # Tutorials use n - 1, which changes each image's std by the same factor.
    per_image = [std * (pixels / (pixels - 1)) ** 0.5 for std in stats["std_per_image"].values()]
    variances = sorted((std / wrong) ** 2 for std, wrong in zip(stats["std"].values(), per_image, strict=True))
    assert f"divide by ({', '.join(f'{std:.4f}' for std in per_image)}) instead" in README
    assert f"variance of {variances[0]:.1f} to {variances[-1]:.1f}, not 1" in README


def test_near_duplicates_are_counted_as_in_the_audit():
    found = json.loads((REPOSITORY / "data/audit.json").read_bytes())
    leaked, twins = found["test"]["leaked"], found["train"]["twins"]
    page = read("docs/near-duplicates.md")
    assert f"{leaked} of CIFAR-10's 10,000 test images ({leaked / 10_000:.1%})" in page
    assert f"{twins:,} of its 50,000 train images ({twins / 50_000:.1%})" in page
    assert f"{leaked} test images" in re.sub(r"\s+", " ", README)
    line = (
        f"{found['near_duplicates']:,} pairs of near-duplicates, {leaked:,} leaked test images, {twins:,} train twins"
    )
    assert line in README


def test_leaks_and_accuracy_are_those_of_the_example():
    """If the accuracy was measured on another list, no number of correct images of this list gives it."""
    metrics = json.loads((REPOSITORY / "examples/train/dvclive/metrics.json").read_bytes())["test"]
    leaked = json.loads((REPOSITORY / "data/audit.json").read_bytes())["test"]["leaked"]
    num_right, num_kept = round(metrics["accuracy"] * 10_000), 10_000 - leaked
    num_right_kept = round(metrics["accuracy_without_leaks"] * num_kept)
    assert num_right_kept / num_kept == metrics["accuracy_without_leaks"]
    page = read("docs/near-duplicates.md")
    for name, right, images in (
        ("all", num_right, 10_000),
        ("without leaks", num_right_kept, num_kept),
        ("leaks alone", num_right - num_right_kept, leaked),
    ):
        assert f"| {name} | {images:,} | {100 * right / images:.2f} |" in page


def test_slowest_accepted_download_takes_as_long_as_documented():
    page = read("docs/reliability.md")
    num_bytes = DATASETS["cifar10"].archive.num_bytes
    assert DEFAULT_TIMEOUTS.window == 60
    assert f"send {MIN_BYTES:,} bytes per minute" in page
    assert f"slower than {MIN_BYTES / 60_000:.0f} kB/s" in page
    assert round(num_bytes / MIN_BYTES / 60) == 12
    assert "CIFAR-10 takes twelve hours" in page


def test_retries_wait_as_long_as_documented():
    waits = [f"{DEFAULT_TIMEOUTS.backoff * 2**number:.0f}" for number in range(RETRIES)]
    assert f"retried up to three times, after {', '.join(waits[:-1])} and {waits[-1]} seconds" in read(
        "docs/reliability.md"
    )
    assert RETRIES == 3


def test_fuzzed_inputs_are_counted_as_documented():
    lines = iter((REPOSITORY / "docs/reliability.md").read_text().partition("\n## Fuzzing")[2].splitlines())
    rows = [line.split(" | ") for line in lines if line.startswith("|")][2:]
    counts = [int(number(row[1].strip("* "))) for row in rows]
    total = counts.pop()
    assert counts == [total * share // 1000 for share in (*SHARES.values(), sum(VALUE_SHARES.values()))]


def test_example_has_the_accuracy_of_its_metrics():
    accuracy = json.loads((REPOSITORY / "examples/train/dvclive/metrics.json").read_bytes())["test"]["accuracy"]
    assert f"reaches {accuracy:.0%} accuracy" in read("examples/train/README.md")
