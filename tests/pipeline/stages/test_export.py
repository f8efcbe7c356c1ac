import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.export.formats import Format
from pipeline.runtime.locks import exclusive_lock
from pipeline.stages.export import OVERHEAD, export_set
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, DamagedFileError, InputError
from tests.helpers.exports import export_in_process
from tests.helpers.shard_sets import make_images, make_params, write_raw_set
from tests.helpers.workspace import REPOSITORY, hash_files


@pytest.fixture
def target_dir(tmp_path):
    """A folder to export to, in one where nothing else may be left."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target/export"


def assert_nothing_left(target_dir):
    assert [*target_dir.parent.iterdir()] == []


def test_progress_counts_all_samples(colour_set, target_dir):
    calls = []
    manifest = export_set(colour_set.dir, target_dir, Format.parquet, lambda *call: calls.append(call))
    assert manifest == colour_set.manifest
    assert calls[-1] == ("Exporting", 14, 14)
    assert [path.name for path in target_dir.parent.iterdir()] == ["export"]


def test_float_values_are_rejected(colour_set, tmp_path, target_dir):
    write_stats(colour_set.dir, tmp_path / "stats.json")
    normalized = tmp_path / "shards"
    normalize_shards(colour_set.dir, tmp_path / "stats.json", normalized, make_params())
    with pytest.raises(
        InputError, match="holds float32 values, but only uint8 pixels can be exported: export data/raw"
    ):
        export_set(normalized, target_dir, Format.parquet)
    assert_nothing_left(target_dir)


def test_two_channels_are_rejected(tmp_path, target_dir):
    raw = write_raw_set(tmp_path / "raw", make_images(3, (2, 8, 8)))
    with pytest.raises(InputError, match="should be grey or RGB to be exported as PNG, got channels band_0, band_1"):
        export_set(raw.dir, target_dir, Format.parquet)
    assert_nothing_left(target_dir)


@pytest.mark.parametrize("name", ["train/images", "val/images", "test/labels"])
def test_damaged_set_is_not_exported(name, colour_set, tmp_path, target_dir):
    copy = shutil.copytree(colour_set.dir, tmp_path / "raw")
    path = copy / f"{name}-00000-of-00001.npy"
    path.write_bytes(path.read_bytes()[:-8] + b"\1" + bytes(7))
    with pytest.raises(DamagedFileError, match=rf"{name}-00000-of-00001.npy: expected SHA-256 (.|\n)*To repair"):
        export_set(copy, target_dir, Format.parquet)
    assert_nothing_left(target_dir)


@pytest.mark.parametrize("when", ["at the start", "at the end"])
@pytest.mark.parametrize("num_samples", [4, 40])
def test_replaced_set_is_not_reported_as_damaged(num_samples, when, colour_set, tmp_path, target_dir):
    copy = shutil.copytree(colour_set.dir, tmp_path / "raw")
    calls = []

    def replace(action, done, total):
        calls.append(done)
        if (len(calls) == 1) if when == "at the start" else (done == total):
            shutil.rmtree(copy)
            write_raw_set(
                copy, num_classes=3, **dict.fromkeys(("train", "val", "test"), make_images(num_samples, (3, 8, 12)))
            )

    with pytest.raises(CorruptDataError, match="was replaced by another set while it was being read") as error:
        export_set(copy, target_dir, Format.parquet, replace)
    assert "repair" not in str(error.value)
    assert_nothing_left(target_dir)


def test_names_that_change_during_the_export_are_found(image_set, tmp_path, target_dir):
    copy = shutil.copytree(image_set.dir, tmp_path / "raw")

    def rename(action, done, total):
        path = copy / "test/samples.csv"
        path.write_bytes(path.read_bytes().replace(b"cat", b"cow"))

    with pytest.raises(DamagedFileError, match="test/samples.csv: expected SHA-256"):
        export_set(copy, target_dir, Format.parquet, rename)
    assert_nothing_left(target_dir)


@pytest.mark.parametrize("existing", ["a file", "an empty folder", "a dangling link", "a loop of links", "an export"])
def test_what_is_there_stays(existing, colour_set, target_dir):
    if existing == "a file":
        target_dir.write_text("notes")
    elif existing == "an empty folder":
        target_dir.mkdir()
    elif existing == "a dangling link":
        target_dir.symlink_to("nowhere")
    elif existing == "a loop of links":
        target_dir.symlink_to("export")
    else:
        export_set(colour_set.dir, target_dir, Format.parquet)
    before = hash_files(target_dir.parent), [*target_dir.parent.iterdir()]
    with pytest.raises(InputError, match="already exists; choose a new folder"):
        export_set(colour_set.dir, target_dir, Format.parquet)
    assert (hash_files(target_dir.parent), [*target_dir.parent.iterdir()]) == before


def test_folder_that_appears_during_the_export_stays(colour_set, target_dir):
    def make_folder(*_):
        target_dir.mkdir(exist_ok=True)
        (target_dir / "mine.txt").write_text("notes")

    with pytest.raises(InputError, match="already exists"):
        export_set(colour_set.dir, target_dir, Format.parquet, make_folder)
    assert [path.name for path in target_dir.parent.rglob("*")] == ["export", "mine.txt"]


def test_folder_within_the_set_is_rejected(colour_set):
    before = hash_files(colour_set.dir)
    for target in (colour_set.dir, colour_set.dir / "export", colour_set.dir / "train/export"):
        with pytest.raises(InputError, match="is within .*; choose a folder outside of it"):
            export_set(colour_set.dir, target, Format.parquet)
    assert hash_files(colour_set.dir) == before


def test_too_little_space_is_found_before_writing(colour_set, target_dir, monkeypatch):
    usage = shutil.disk_usage(target_dir.parent)._replace(free=14 * (3 * 8 * 12 + OVERHEAD[Format.parquet]) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PipelineError, match="will be written, but the disk has .* free. Free space, or choose"):
        export_set(colour_set.dir, target_dir, Format.parquet)
    assert_nothing_left(target_dir)


def test_second_export_to_a_folder_is_rejected(colour_set, target_dir):
    with exclusive_lock(target_dir, wait=False), pytest.raises(PipelineError, match="another process is writing to it"):
        export_set(colour_set.dir, target_dir, Format.parquet)


@pytest.mark.slow
@pytest.mark.parametrize("target", Format)
def test_noise_needs_no_more_space_than_was_checked(target, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 3, 16, 16), np.uint8)
    export_in_process(target, {tmp_path / "export": write_raw_set(tmp_path / "raw", noise)})
    num_bytes = sum(path.stat().st_size for path in (tmp_path / "export").rglob("*.*"))
    assert num_bytes < 300 * (3 * 16 * 16 + OVERHEAD[target])


@pytest.mark.slow
@pytest.mark.parametrize("target", Format)
def test_same_set_gives_the_same_bytes(target, colour_set, tmp_path):
    hashes = []
    for threads in ("1", "5"):
        command = [sys.executable, "-m", "pipeline", "export", colour_set.dir, tmp_path / threads, "--format", target]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"PIPELINE_THREADS": threads}, check=True, timeout=60)
        hashes.append(hash_files(tmp_path / threads))
    assert hashes[0] == hashes[1]
