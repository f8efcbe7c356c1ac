import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.audit.details import load_details
from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.search_index import open_index
from pipeline.audit.shard_survey import survey_shards
from pipeline.errors import PipelineError
from pipeline.runtime.resume import open_step
from pipeline.shards.writer import save_manifest
from pipeline.stages.audit import audit_images
from pipeline.stages.remedies import REPAIR_HINT
from shardset.dataset import ShardDataset
from shardset.errors import CorruptDataError, DamagedFileError, InputError
from tests.helpers.memory import traced_peak
from tests.helpers.shard_sets import audit, audit_params, make_images, read_images, write_raw_set
from tests.helpers.task_sizes import recording_sizes
from tests.helpers.workspace import hash_files

SPLITS = [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]
WORK_NAME = ".audit.work.tmp"
TABLES = {"near_duplicates.csv", "images.csv", "details.json", "train_without_twins.csv", "SHA256SUMS"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A raw set in which images of train occur again, equal or changed, in train and test. Labels are index % 2."""
    train, test = make_images(60), make_images(12, seed=1)
    train[50] = np.minimum(train[11].astype(int) + 30, 255)  # a brighter twin, of another class
    train[51] = train[50]
    test[1] = train[8]
    test[2] = train[21][..., ::-1]
    test[3] = np.roll(train[33], (1, -1), (1, 2))
    test[7] = test[5]
    return write_raw_set(tmp_path_factory.mktemp("planted") / "raw", train, test)


PLANTED = {
    ("train", 50, "train", 11, 0),
    ("train", 51, "train", 11, 0),
    ("train", 51, "train", 50, 0),
    ("test", 1, "train", 8, 0),
    ("test", 2, "train", 21, 1),
    ("test", 3, "train", 33, 0),
    ("test", 7, "test", 5, 0),
}


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_pairs(audit_dir):
    """The pairs of near_duplicates.csv, without distances."""
    rows = read_rows(audit_dir / "near_duplicates.csv")
    return {
        (row["split"], int(row["index"]), row["other_split"], int(row["other_index"]), int(row["mirrored"]))
        for row in rows
    }


def read_metrics(audit_dir):
    return json.loads(audit_dir.with_suffix(".json").read_bytes())


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def without_work(hashes):
    """Leave out what an interrupted run keeps for the next one."""
    return {name: sha256 for name, sha256 in hashes.items() if not name.startswith(WORK_NAME)}


@pytest.mark.parametrize("splits", SPLITS, ids="+".join)
def test_each_split_is_audited(splits, tmp_path):
    images = {split: make_images(20 - 4 * seed, seed=seed) for seed, split in enumerate(splits)}
    for split in splits[1:]:
        images[split][0] = images["train"][3]
    raw = write_raw_set(tmp_path / "raw", **images)
    audit(raw.dir, tmp_path / "audit")

    leak_lists = {f"{split}_without_leaks.csv" for split in splits[1:]}
    assert names_in(tmp_path / "audit") == TABLES | leak_lists
    assert names_in(tmp_path) == {"raw", "audit", "audit.json"}
    expected = {(split, 0, "train", 3, 0) for split in splits[1:]}
    if len(splits) == 3:
        expected.add(("test", 0, "val", 0, 0))
    assert read_pairs(tmp_path / "audit") == expected

    metrics = read_metrics(tmp_path / "audit")
    assert [*metrics] == [*splits, "exact_duplicates", "near_duplicates", "label_conflicts", "clusters"]
    assert metrics["train"] == {"twins": 0}
    for split in splits[1:]:
        percent = round(100 / len(images[split]), 2)
        assert metrics[split] == {"leaked": 1, "leaked_percent": percent, "twins": 0}
    assert metrics["exact_duplicates"] == len(splits) - 1
    assert metrics["near_duplicates"] == len(expected)
    assert metrics["clusters"] == min(1, len(expected))

    details = load_details(tmp_path / "audit")
    assert details.content_sha256 == raw.manifest.content_sha256
    assert {split: of.samples for split, of in details.splits.items()} == {
        split: len(of_split) for split, of_split in images.items()
    }
    rows = read_rows(tmp_path / "audit/images.csv")
    assert [(row["split"], int(row["index"])) for row in rows] == [
        (split, index) for split in splits for index in range(len(images[split]))
    ]


def test_planted_pairs_are_listed_and_counted(planted, tmp_path):
    summary = audit(planted.dir, tmp_path / "audit")
    rows = read_rows(tmp_path / "audit/near_duplicates.csv")
    assert read_pairs(tmp_path / "audit") == PLANTED
    distances = {(row["split"], int(row["index"]), int(row["other_index"])): float(row["distance"]) for row in rows}
    assert distances["train", 51, 50] == distances["test", 1, 8] == distances["test", 7, 5] == 0
    assert all(0 <= distance <= 0.35 for distance in distances.values())
    clusters: dict[str, set] = defaultdict(set)
    for row in rows:
        clusters[row["cluster"]] |= {(row["split"], row["index"]), (row["other_split"], row["other_index"])}
    assert sorted(map(len, clusters.values())) == [2, 2, 2, 2, 3]
    assert [*clusters] == ["0", "1", "2", "3", "4"]
    for row in rows:
        labels = [f"class_{int(row[index]) % 2}" for index in ("index", "other_index")]
        assert [row["label"], row["other_label"]] == labels

    # Labels differ for train 50 and 11, 51 and 50, test 1 and 8, 2 and 21.
    assert read_metrics(tmp_path / "audit") == {
        "train": {"twins": 2},
        "test": {"leaked": 3, "leaked_percent": 25.0, "twins": 1},
        "exact_duplicates": 3,
        "near_duplicates": 7,
        "label_conflicts": 4,
        "clusters": 5,
    }
    assert summary == "7 pairs of near-duplicates, 3 leaked test images, 2 train twins, 4 label conflicts"
    nearest = {
        (row["split"], int(row["index"])): float(row["nearest"])
        for row in read_rows(tmp_path / "audit/images.csv")
        if row["nearest"]
    }
    assert nearest.keys() == {image for *pair, _ in PLANTED for image in ((pair[0], pair[1]), (pair[2], pair[3]))}
    assert nearest["train", 50] == 0
    assert nearest["train", 11] == min(distances["train", 50, 11], distances["train", 51, 11])


def test_lists_to_keep_are_what_shard_dataset_takes(planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    for split, name, dropped in (
        ("train", "train_without_twins.csv", {50, 51}),
        ("test", "test_without_leaks.csv", {1, 2, 3}),
    ):
        images = read_images(planted, split)
        kept = [index for index in range(len(images)) if index not in dropped]
        with ShardDataset(planted.dir, split, normalize=False, indices=tmp_path / "audit" / name) as dataset:
            assert len(dataset) == len(kept)
            assert all(np.array_equal(dataset[row][0], images[index]) for row, index in enumerate(kept))


@pytest.mark.slow
def test_bytes_do_not_depend_on_threads_or_shards(planted, tmp_path, monkeypatch):
    images = {split: read_images(planted, split) for split in ("train", "test")}
    audit(planted.dir, tmp_path / "audit")
    expected = hash_files(tmp_path / "audit")
    metrics = (tmp_path / "audit.json").read_bytes()
    for threads, samples_per_shard in (("1", 10_000), ("2", 7), ("7", 1), ("7", 25)):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", samples_per_shard)
        raw = write_raw_set(tmp_path / f"{threads} {samples_per_shard}", **images)
        assert len(raw.shards("train")) == -(-60 // samples_per_shard)
        audit(raw.dir, tmp_path / "audit")
        assert hash_files(tmp_path / "audit") == expected
        assert (tmp_path / "audit.json").read_bytes() == metrics


def test_ignored_pairs_are_left_out_and_counted(planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    header, *rows = (tmp_path / "audit/near_duplicates.csv").read_text().splitlines()
    judged = [row for row in rows if row.startswith(("test,1,", "train,50,"))]
    assert len(judged) == 2
    (tmp_path / "judged.csv").write_text("\n".join([header, *judged, ""]))
    audit(planted.dir, tmp_path / "after", ignore=str(tmp_path / "judged.csv"))
    # Train 51 equals 50, so it is known not to be a duplicate of 11 either.
    left_out = {("train", 50, "train", 11, 0), ("train", 51, "train", 11, 0), ("test", 1, "train", 8, 0)}
    assert read_pairs(tmp_path / "after") == PLANTED - left_out
    assert load_details(tmp_path / "after").ignored == 3
    metrics = read_metrics(tmp_path / "after")
    assert (metrics["train"]["twins"], metrics["test"]["leaked"], metrics["near_duplicates"]) == (1, 2, 4)
    kept = [row["index"] for row in read_rows(tmp_path / "after/train_without_twins.csv")]
    assert "50" in kept
    assert "51" not in kept


def test_unusable_list_of_ignored_pairs_leaves_the_old_audit(planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    before = hash_files(tmp_path)
    with pytest.raises(InputError, match=r"absent\.csv: no such file, although params\.yaml names it as audit\.ignore"):
        audit(planted.dir, tmp_path / "audit", ignore=str(tmp_path / "absent.csv"))
    assert hash_files(tmp_path) == before


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        ({"max_leaked": 2}, ["audit.max_leaked: expected at most 2, got 3:", "  test 1 and train 8, distance 0.0"]),
        (
            {"max_exact_duplicates": 0, "max_leaked": 3},
            ["audit.max_exact_duplicates: expected at most 0, got 3:", "  train 51 and train 50, distance 0.0"],
        ),
        (
            {"max_label_conflicts": 3},
            ["audit.max_label_conflicts: expected at most 3, got 4:", "  train 51 and train 50, distance 0.0"],
        ),
    ],
)
def test_exceeded_limit_fails_once_everything_is_written(limits, lines, planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    before = hash_files(tmp_path)
    shutil.rmtree(tmp_path / "audit")
    (tmp_path / "audit.json").unlink()
    with pytest.raises(PipelineError) as failed:
        audit(planted.dir, tmp_path / "audit", **limits)
    message = str(failed.value).splitlines()
    assert message[0] == lines[0]
    assert lines[1] in message
    assert message[-1].startswith("All pairs are in data/audit/near_duplicates.csv.")
    assert hash_files(tmp_path) == before


def test_limits_that_are_kept_change_nothing(planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    before = hash_files(tmp_path)
    audit(planted.dir, tmp_path / "audit", max_leaked=3, max_exact_duplicates=3, max_label_conflicts=4)
    assert hash_files(tmp_path) == before


@pytest.mark.parametrize("name", ["train/images", "train/labels", "test/images", "test/labels"])
def test_damaged_raw_file_leaves_the_old_audit(name, planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    raw_dir = shutil.copytree(planted.dir, tmp_path / "raw")
    path = raw_dir / f"{name}-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    before = hash_files(tmp_path)
    with pytest.raises(CorruptDataError, match=rf"{path.name}: expected SHA-256") as failed:
        audit(raw_dir, tmp_path / "audit")
    assert str(failed.value).endswith(REPAIR_HINT)
    assert without_work(hash_files(tmp_path)) == before


def test_content_other_than_that_of_the_manifest_is_found(planted, tmp_path):
    raw_dir = shutil.copytree(planted.dir, tmp_path / "raw")
    save_manifest(replace(planted.manifest, content_sha256="0" * 64), raw_dir)
    with pytest.raises(CorruptDataError, match=r"raw/manifest\.json: content_sha256: expected 0{64}, but the shards"):
        audit(raw_dir, tmp_path / "audit")
    assert names_in(tmp_path) == {"raw", WORK_NAME}


def test_raw_set_replaced_during_the_run_leaves_the_old_audit(planted, tmp_path):
    audit(planted.dir, tmp_path / "audit")
    before = hash_files(tmp_path / "audit")
    raw_dir = shutil.copytree(planted.dir, tmp_path / "raw")
    write_raw_set(tmp_path / "other", make_images(60, seed=3), make_images(12, seed=4))

    def swap(action, done, total):
        if action == "Comparing" and done == total:
            raw_dir.rename(tmp_path / "old")
            (tmp_path / "other").rename(raw_dir)

    with pytest.raises(CorruptDataError, match="was replaced by another set while it was being read"):
        audit_images(raw_dir, tmp_path / "audit", tmp_path / "audit.json", audit_params(), swap)
    assert hash_files(tmp_path / "audit") == before
    assert names_in(tmp_path) == {"raw", "old", "audit", "audit.json", WORK_NAME}


@pytest.mark.slow
def test_failing_system_call_leaves_the_old_audit_or_the_new_one(planted, tmp_path, monkeypatch):
    audit(planted.dir, tmp_path / "audit")
    new = hash_files(tmp_path / "audit")
    judged = str(shutil.copy(tmp_path / "audit/near_duplicates.csv", tmp_path / "judged.csv"))
    audit(planted.dir, tmp_path / "old", ignore=judged)
    old = hash_files(tmp_path / "old")
    names = names_in(tmp_path)
    calls_left = 0

    def failing(call):
        def make(*args, **kwargs):
            nonlocal calls_left
            calls_left -= 1
            if calls_left == 0:
                raise OSError(errno.EIO, "Input/output error")
            return call(*args, **kwargs)

        return make

    for number in count(1):
        shutil.rmtree(tmp_path / "audit")
        shutil.copytree(tmp_path / "old", tmp_path / "audit")
        calls_left = number
        with monkeypatch.context() as patch:
            for name in ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink"):
                patch.setattr(os, name, failing(getattr(os, name)))
            with suppress(OSError, PipelineError):
                audit(planted.dir, tmp_path / "audit")
        if calls_left > 0:
            break
        folders = [tmp_path / "audit", tmp_path / ".audit.old.tmp"]
        assert next(hash_files(folder) for folder in folders if folder.exists()) in (old, new)
        audit(planted.dir, tmp_path / "audit")
        assert hash_files(tmp_path / "audit") == new
        assert names_in(tmp_path) == names
    assert number > 20


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 1), (2, 5, 7)])
def test_exact_duplicates_of_images_too_small_to_search_are_found(shape, tmp_path):
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones(shape, np.uint8)
    images[9] = images[2]
    raw = write_raw_set(tmp_path / "raw", images[:15], np.concatenate([images[15:], images[[4]]]))
    audit(raw.dir, tmp_path / "audit")
    assert not load_details(tmp_path / "audit").searched
    assert read_pairs(tmp_path / "audit") == {("train", 9, "train", 2, 0), ("test", 5, "train", 4, 0)}
    assert names_in(tmp_path / "audit") == TABLES | {"test_without_leaks.csv"}


@pytest.mark.parametrize("shape", [(1, 28, 28), (4, 9, 40), (3, 90, 50)])
def test_images_of_any_shape_are_searched(shape, tmp_path):
    images = make_images(30, shape)
    raw = write_raw_set(tmp_path / "raw", images, images[[8, 3]])
    audit(raw.dir, tmp_path / "audit")
    assert load_details(tmp_path / "audit").searched
    assert read_pairs(tmp_path / "audit") >= {("test", 0, "train", 8, 0), ("test", 1, "train", 3, 0)}


def test_progress_reaches_the_number_of_images(planted, tmp_path):
    seen = defaultdict(list)
    audit_images(
        planted.dir,
        tmp_path / "audit",
        tmp_path / "audit.json",
        audit_params(),
        lambda action, done, total: seen[action].append((done, total)),
    )
    assert [*seen] == ["Measuring", "Comparing"]
    for calls in seen.values():
        assert calls == sorted(calls)
        assert calls[-1] == (72, 72)
        assert {total for _, total in calls} == {72}


def test_missing_raw_set_leaves_nothing_behind(tmp_path):
    with pytest.raises(CorruptDataError, match="absent/manifest.json: missing"):
        audit(tmp_path / "absent", tmp_path / "audit")
    assert names_in(tmp_path) == set()


@pytest.fixture(scope="module")
def many_shards(planted, tmp_path_factory):
    """The planted set in shards of 8 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 8)
        return write_raw_set(
            tmp_path_factory.mktemp("shards") / "raw", *(read_images(planted, split) for split in ("train", "test"))
        )


needs_kill = pytest.mark.skipif(os.name != "posix", reason="kills a process")
KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.audit import near_duplicates
from pipeline.stages.audit import audit_images
from tests.helpers.shard_sets import audit_params

def kill(action, done, total):
    if action == sys.argv[3] and 2 * done >= total:
        os.kill(os.getpid(), signal.SIGKILL)

near_duplicates.MAX_QUERIES = 16
audit_dir = Path(sys.argv[2])
audit_images(Path(sys.argv[1]), audit_dir, audit_dir.with_suffix(".json"), audit_params(), kill)
"""


def kill_during(action, raw_dir, audit_dir):
    """Run the stage in another process, which is killed when half of `action` is done."""
    result = subprocess.run([sys.executable, "-c", KILLED, raw_dir, audit_dir, action], check=False)
    assert result.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed_dir(many_shards, tmp_path_factory):
    """A folder with what a run of the stage left that was killed when half of the images were compared."""
    path = tmp_path_factory.mktemp("killed")
    kill_during("Comparing", many_shards.dir, path / "audit")
    return path


@pytest.fixture
def killed(killed_dir, tmp_path, monkeypatch):
    """A copy of `killed_dir` in tmp_path, for a test to go on with."""
    monkeypatch.setattr("pipeline.audit.near_duplicates.MAX_QUERIES", 16)
    shutil.copytree(killed_dir / WORK_NAME, tmp_path / WORK_NAME)


def record_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(f"{WORK_NAME}/s*.records/*-*")}


@needs_kill
@pytest.mark.parametrize(("action", "num_finished"), [("Measuring", 5), ("Comparing", 10 + 3)])
def test_killed_run_goes_on_where_it_was(action, num_finished, many_shards, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.audit.near_duplicates.MAX_QUERIES", 16)
    audit(many_shards.dir, tmp_path / "audit")
    expected = hash_files(tmp_path / "audit")
    shutil.rmtree(tmp_path / "audit")
    kill_during(action, many_shards.dir, tmp_path / "audit")
    finished, at_end = record_times(tmp_path), {}
    assert len(finished) >= num_finished

    def look(action, done, total):
        if (action, done) == ("Comparing", total):
            at_end.update(record_times(tmp_path))

    audit_images(many_shards.dir, tmp_path / "audit", tmp_path / "audit.json", audit_params(), look)
    assert hash_files(tmp_path / "audit") == expected
    assert finished.items() <= at_end.items()
    assert len(at_end) > len(finished)
    assert names_in(tmp_path) == {"audit", "audit.json"}


@needs_kill
@pytest.mark.parametrize("changed", ["images", "shards"])
def test_leftovers_of_another_set_are_not_used(changed, many_shards, killed, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 8 if changed == "images" else 7)
    images = [read_images(many_shards, split) for split in ("train", "test")]
    if changed == "images":
        images[0][50] = images[1][5]
    raw = write_raw_set(tmp_path / "raw", *images)
    audit(raw.dir, tmp_path / "expected")
    audit(raw.dir, tmp_path / "audit")
    assert hash_files(tmp_path / "audit") == hash_files(tmp_path / "expected")
    rows = read_rows(tmp_path / "audit/near_duplicates.csv")
    assert any(row["index"] == "5" and row["other_index"] == "50" for row in rows) == (changed == "images")


@needs_kill
def test_other_params_go_on_with_what_was_found(many_shards, killed, tmp_path):
    audit(many_shards.dir, tmp_path / "all")
    judged = str(tmp_path / "all/near_duplicates.csv")
    audit(many_shards.dir, tmp_path / "expected", ignore=judged)
    audit(without_images(many_shards, tmp_path), tmp_path / "audit", ignore=judged)
    assert hash_files(tmp_path / "audit") == hash_files(tmp_path / "expected")


@needs_kill
def test_fresh_run_measures_all_again(many_shards, killed, tmp_path):
    arguments = without_images(many_shards, tmp_path), tmp_path / "audit", tmp_path / "audit.json", audit_params()
    with pytest.raises(DamagedFileError, match=r"images-.*\.npy: missing"):
        audit_images(*arguments, fresh=True)


def without_images(raw, path):
    """Copy a raw set without the files of images, so that these can't be measured again."""
    return shutil.copytree(raw.dir, path / "raw", ignore=shutil.ignore_patterns("images-*"))


def test_tasks_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 5)
    raw = write_raw_set(tmp_path / "raw", make_images(300, (1, 8, 8)))
    sizes: list[int] = []

    survey, search = (open_step(tmp_path, name) for name in ("survey", "search"))
    record = recording_sizes(sizes)
    survey_shards(raw, survey, record)
    assert len(sizes) == 60
    find_near_duplicates(open_index(raw, survey.dir), search, record)
    assert len(sizes) == 61
    assert max(sizes) < 3000  # of which 480 say where the shards of a split end


def test_too_little_space_is_an_error_before_anything_is_written(planted, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(
        PipelineError, match=r"audit: [0-9.]+ MB will be written, but the disk has 0\.0 MB free\. Free space"
    ):
        audit(planted.dir, tmp_path / "audit")
    assert names_in(tmp_path) == set()


MAX_BYTES_PER_IMAGE = 120


def audit_traced(raw_dir, path):
    """Audit, and forget the peak of measuring, which doesn't depend on the number of images."""

    def reset_peak(action, done, total):
        if (action, done) == ("Measuring", total):
            tracemalloc.reset_peak()

    audit_images(raw_dir, path / "audit", path / "audit.json", audit_params(), reset_peak)


@pytest.mark.slow
def test_memory_per_image_is_bounded(tmp_path, monkeypatch):
    """Images of 4 x 4 pixels are not searched, which doesn't take memory for each image anyway."""
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 1000)
    monkeypatch.setenv("PIPELINE_THREADS", "1")
    sizes, peaks = (20_000, 60_000), []

    for size in sizes:
        images = np.random.default_rng(size).integers(0, 256, (size, 1, 4, 4), np.uint8)
        raw_dir = write_raw_set(tmp_path / "raw", images, num_classes=100).dir
        del images
        peaks.append(traced_peak(audit_traced, raw_dir, tmp_path))
    per_image = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    print(f"{per_image:.0f} bytes an image")
    assert per_image < MAX_BYTES_PER_IMAGE
