"""Stage `download` after a run that failed or was killed."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import PipelineError
from shardset.errors import InputError
from shardset.shards import open_shards, verify_shards
from shardset.threads import ignore
from tests.helpers.image_files import make_image_folder, make_tar, save_picture
from tests.helpers.shard_sets import download
from tests.helpers.workspace import REPOSITORY, hash_files

NUM_SHARDS = 6  # two of each split

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import pipeline.shards.raw
from tests.helpers.shard_sets import download

def kill(action, done, total):
    if action == "Decoding" and done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

pipeline.shards.raw.MAX_SAMPLES_PER_SHARD = 3
download("images", Path(sys.argv[2]), Path(), sys.argv[1], progress=kill)
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 3)


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "pictures")


@pytest.fixture
def damaged(folder, tmp_path):
    """The last image of val/cat, which could not be decoded, so that the run failed after all others were."""
    path = folder / "val/cat/2.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="1 image can't be read"):
        take(tmp_path, folder)
    assert not (tmp_path / "raw").exists()
    return path


def take(tmp_path, source, name="raw", progress=ignore, **changes):
    download("images", tmp_path / name, tmp_path, source, progress=progress, **changes)
    return verify_shards(tmp_path / name)


def image_times(path):
    """When each file of images was written, by name."""
    return {file.relative_to(path).as_posix(): file.stat().st_mtime_ns for file in path.rglob("images-*.npy")}


def kept(before, path):
    """The files of images that are the same files as before."""
    after = image_times(path)
    return {name for name in after if after[name] == before.get(name)}


def decoded(tmp_path):
    """The folder that all samples were decoded into."""
    (folder,) = (path for path in tmp_path.glob(".raw.work.tmp/decoded-*") if path.suffix != ".records")
    return folder


def assert_as_undisturbed(tmp_path, source, **changes):
    """Compare data/raw with that of a run that nothing has happened to."""
    take(tmp_path, source, "other", **changes)
    assert hash_files(tmp_path / "raw") == hash_files(tmp_path / "other")
    assert not [*tmp_path.glob(".*")]


def test_repaired_file_has_only_its_shard_decoded_again(damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    save_picture(damaged, 99)
    take(tmp_path, folder)
    assert {*before} - kept(before, tmp_path / "raw") == {"val/images-00000-of-00002.npy"}
    assert len(before) == NUM_SHARDS
    assert_as_undisturbed(tmp_path, folder)


def test_skipping_after_a_failure_decodes_nothing(damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    seen = []

    def look(action, done, total):
        if action == "Moving to splits":
            seen.append(kept(before, decoded(tmp_path)))

    raw = take(tmp_path, folder, progress=look, unreadable="skip")
    assert {len(of_call) for of_call in seen} == {NUM_SHARDS}
    assert raw.manifest.skipped == 1
    assert_as_undisturbed(tmp_path, folder, unreadable="skip")


@pytest.mark.slow
def test_fractions_after_a_failure_decode_nothing(tmp_path):
    folder = make_image_folder(tmp_path / "flat", splits=("",), each=20)
    path = folder / "cat/1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError):
        take(tmp_path, folder)
    before = image_times(decoded(tmp_path))
    path.write_bytes(content)
    seen = []
    changes = {"test_fraction": 0.2, "val_fraction": 0.2}
    take(tmp_path, folder, progress=lambda *_: seen.append(kept(before, decoded(tmp_path))), **changes)
    assert len(seen[-1]) == len(before) - 1
    assert_as_undisturbed(tmp_path, folder, **changes)


def test_changed_file_is_decoded_again(damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    shutil.copy(folder / "val/dog/1.jpg", damaged)
    save_picture(folder / "train/dog/1.jpg", 77)
    take(tmp_path, folder)
    changed = {"val/images-00000-of-00002.npy", "train/images-00001-of-00002.npy"}
    assert {*before} - kept(before, tmp_path / "raw") == changed
    assert_as_undisturbed(tmp_path, folder)


def test_image_with_a_damaged_header_is_decoded_once_repaired(folder, tmp_path):
    path = folder / "train/cat/0.jpg"
    content = path.read_bytes()
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="not an image"):
        take(tmp_path, folder)
    before = image_times(decoded(tmp_path))
    with pytest.raises(InputError, match="not an image"):
        take(tmp_path, folder)
    assert len(kept(before, decoded(tmp_path))) == NUM_SHARDS
    path.write_bytes(content)
    take(tmp_path, folder)
    assert {*before} - kept(before, tmp_path / "raw") == {"train/images-00000-of-00002.npy"}
    assert_as_undisturbed(tmp_path, folder)


@pytest.mark.slow
def test_archive_of_the_same_files_decodes_nothing_else(damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    save_picture(damaged, 99)
    archive = make_tar(folder, tmp_path / "pictures.tar")
    take(tmp_path, archive)
    assert len(kept(before, tmp_path / "raw")) == NUM_SHARDS - 1
    assert_as_undisturbed(tmp_path, archive)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["size", "resize", "orientation", "name", "class", "fresh"])
def test_leftovers_of_other_inputs_are_not_used(change, damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    save_picture(damaged, 99)
    changes = {"size": {"size": 31}, "resize": {"resize": 40}, "orientation": {"orientation": "ignore"}}.get(change, {})
    if change == "name":
        (folder / "train/cat/0.jpg").rename(folder / "train/cat/00.jpg")
    if change == "class":
        for split in ("train", "val", "test"):
            (folder / split / "cat").rename(folder / split / "bird")
    take(tmp_path, folder, **changes, fresh=change == "fresh")
    assert not kept(before, tmp_path / "raw")
    assert_as_undisturbed(tmp_path, folder, **changes)


def test_damaged_shard_is_decoded_again(damaged, folder, tmp_path):
    before = image_times(decoded(tmp_path))
    name = "test/images-00001-of-00002.npy"
    with (decoded(tmp_path) / name).open("r+b") as file:
        file.seek(200)
        file.write(b"?")
    save_picture(damaged, 99)
    take(tmp_path, folder)
    assert {*before} - kept(before, tmp_path / "raw") == {name, "val/images-00000-of-00002.npy"}
    assert_as_undisturbed(tmp_path, folder)


def test_run_killed_after_the_last_step_goes_on(damaged, folder, tmp_path):
    """The folder of decoded samples has become that of the set, and has not replaced data/raw yet."""
    before = image_times(decoded(tmp_path))
    folder_of_all = decoded(tmp_path)
    folder_of_all.rename(folder_of_all.with_name(folder_of_all.name.replace("decoded", "set")))
    save_picture(damaged, 99)
    take(tmp_path, folder)
    assert len(kept(before, tmp_path / "raw")) == NUM_SHARDS - 1
    assert_as_undisturbed(tmp_path, folder)


@pytest.mark.parametrize("has_records", [True, False])
def test_set_of_a_selection_is_replaced_by_that_of_all_samples(has_records, damaged, folder, tmp_path):
    """An earlier run was killed while it wrote the images that it had not skipped, or removed such ones."""
    (tmp_path / ".raw.work.tmp/set-of-others/train").mkdir(parents=True)
    (tmp_path / ".raw.work.tmp/set-of-others/skipped.csv").touch()
    if has_records:
        (tmp_path / ".raw.work.tmp/set-of-others.records").mkdir()
    save_picture(damaged, 99)
    take(tmp_path, folder)
    assert_as_undisturbed(tmp_path, folder)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("num_decoded", [2, 9, 16, 18])
def test_killed_run_goes_on_with_the_same_bytes(num_decoded, folder, tmp_path):
    command = [sys.executable, "-c", KILLED_RUN, str(folder), str(tmp_path / "raw"), str(num_decoded)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False)
    assert done.returncode == -signal.SIGKILL
    records = {path.name for path in tmp_path.glob(".raw.work.tmp/decoded-*.records/*-of-*")}
    assert len(records) == max(0, num_decoded - 1) // 3
    before = image_times(decoded(tmp_path))
    take(tmp_path, folder)
    after = kept(before, tmp_path / "raw")
    assert {name.replace("/images", "") for name in after} >= records
    assert len(after) <= len(records) + 1
    assert_as_undisturbed(tmp_path, folder)


def test_resumed_shards_count_as_progress(damaged, folder, tmp_path):
    calls = []
    with pytest.raises(InputError):
        take(tmp_path, folder, progress=lambda *call: calls.append(call))
    counts = [done for action, done, _ in calls if action == "Decoding"]
    assert counts == sorted(counts)
    assert counts[-1] == 18


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "num_copies"), [({}, 1), ({"unreadable": "skip"}, 2), ({"val_fraction": 0.2}, 2)])
def test_full_disk_is_told_before_anything_is_decoded(changes, num_copies, tmp_path, monkeypatch):
    folder = make_image_folder(tmp_path / "flat", splits=("",), each=20)
    num_bytes = num_copies * 40 * 3 * 32 * 32
    free = shutil.disk_usage(tmp_path)
    calls = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=num_bytes - 1))
    with pytest.raises(
        PipelineError, match=r"raw: [0-9.]+ MB will be written, but .* free\. Set images\.size in params"
    ):
        take(tmp_path, folder, progress=lambda action, *_: calls.append(action), **changes)
    assert {*calls} == {"Looking at files"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=num_bytes))
    take(tmp_path, folder, **changes)


def test_finished_shards_need_no_space(damaged, folder, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)
    num_bytes = sum(path.stat().st_size for path in decoded(tmp_path).rglob("*.npy"))
    save_picture(damaged, 99)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=18 * 3 * 32 * 32 - num_bytes))
    take(tmp_path, folder)


def test_known_dataset_goes_on_too(tiny, tmp_path, monkeypatch):
    from pipeline.sources.registry import DATASETS

    facts = tiny.facts()
    source = tiny.write_files(tmp_path / "source")
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 30)
    monkeypatch.setenv("PIPELINE_THREADS", "1")
    monkeypatch.setitem(DATASETS, "tiny", facts)

    def stop(action, done, total):
        if done >= 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("tiny", tmp_path / "raw", tmp_path, source, progress=stop)
    before = image_times(decoded(tmp_path))
    download("tiny", tmp_path / "raw", tmp_path, source)
    assert len(kept(before, tmp_path / "raw")) == 2
    shards = open_shards(tmp_path / "raw")
    assert shards.manifest.content_sha256 == tiny.content_sha256
    assert np.array_equal(shards.take("train", np.arange(100)), tiny.train[0])
