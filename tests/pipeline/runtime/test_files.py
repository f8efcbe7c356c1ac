"""Two processes in one place, and what a killed one left there."""

import errno
import hashlib
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.runtime.files import replace_dir, write_text
from shardset.shards import verify_shards
from tests.helpers.workspace import assert_fails


@pytest.fixture
def tiny_workspace(workspace, tiny_raw):
    """A workspace with the tiny dataset's data/raw, stats.json and shards."""
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    for stage in ("stats", "normalize"):
        assert workspace.pipeline(stage).returncode == 0
    return workspace


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_who_comes_second_is_told_so_and_the_former_set_stays(tiny_workspace):
    shards_dir = tiny_workspace.path / "data/shards"
    tiny_workspace.set_param("dtype: float32", "dtype: uint8")
    before = names(shards_dir.parent)
    with suppress(ZeroDivisionError), replace_dir(shards_dir) as staging_dir:
        done = tiny_workspace.pipeline("normalize")
        assert_fails(done, 1, "data/shards: another process is writing it: let it end, then run this again")
        assert done.stderr.count("\n") == 1
        assert staging_dir.exists()
        raise ZeroDivisionError
    assert verify_shards(shards_dir).manifest.dtype == "float32"
    assert names(shards_dir.parent) == before
    assert tiny_workspace.pipeline("normalize").returncode == 0
    assert verify_shards(shards_dir).manifest.dtype == "uint8"


def test_other_places_are_not_locked(tmp_path):
    with replace_dir(tmp_path / "one") as one, replace_dir(tmp_path / "one.new") as other:
        (one / "a").touch()
        (other / "b").touch()
    assert {name: names(tmp_path / name) for name in names(tmp_path)} == {"one": ["a"], "one.new": ["b"]}


def test_what_a_killed_process_left_is_removed_by_the_next(tiny_workspace):
    data_dir = tiny_workspace.path / "data"
    before = names(data_dir)
    for role in ("new", "old", "gone"):
        (data_dir / f".shards.{role}.tmp/train").mkdir(parents=True)
        (data_dir / f".shards.{role}.tmp/train/images-00000-of-00001.npy").touch()
    for name in ("shards.lock", "stats.json.lock", "stats.json.new"):
        (data_dir / f".{name}.tmp").write_text("left")
    for stage in ("stats", "normalize"):
        assert tiny_workspace.pipeline(stage).returncode == 0
    assert names(data_dir) == before
    verify_shards(data_dir / "shards")


def test_a_process_killed_between_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".set.old.tmp").mkdir()
    (tmp_path / ".set.old.tmp/good").touch()
    with suppress(ZeroDivisionError), replace_dir(tmp_path / "set"):
        assert names(tmp_path / "set") == ["good"]
        raise ZeroDivisionError
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["good"]


def test_a_text_that_many_write_is_one_of_theirs(tmp_path):
    path = tmp_path / "text"
    texts = [f"{number}\n" * 10_000 for number in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        futures = [pool.submit(write_text, path, text) for text in texts for _ in range(5)]
        while not all(future.done() for future in futures):
            assert not path.exists() or path.read_text() in texts
    assert [future.result() for future in futures] == [None] * 40
    assert path.read_text() in texts
    assert names(tmp_path) == ["text"]


def test_many_who_replace_one_folder_never_mix(tmp_path):
    def replace(number):
        with replace_dir(tmp_path / "set") as staging_dir:
            for name in "abc":
                (staging_dir / name).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(replace, number) for number in range(100)]
    errors = [str(future.exception()) for future in futures if future.exception()]
    assert len(errors) < 100
    assert all("another process is writing it" in error for error in errors), errors
    assert len({(tmp_path / "set" / name).read_text() for name in "abc"}) == 1
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_the_cleaning_waits_for_its_end(number, tmp_path, monkeypatch):
    def stop_and_remove(*args, **kwargs):
        signal.raise_signal(number)
        return rmtree(*args, **kwargs)

    def stop(number, frame):
        raise InterruptedError

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", stop_and_remove)
    former = signal.signal(number, stop)
    try:
        with pytest.raises((InterruptedError, PipelineError)), replace_dir(tmp_path / "set"):
            raise ZeroDivisionError
    finally:
        signal.signal(number, former)
    assert names(tmp_path) == []


def test_where_a_file_system_has_no_locks_the_work_is_done(tmp_path, monkeypatch):
    def lock(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", lock)
    write_text(tmp_path / "text", "written")
    assert (names(tmp_path), (tmp_path / "text").read_text()) == (["text"], "written")


def test_a_lock_that_the_former_writer_removed_meanwhile_is_none(tmp_path, monkeypatch):
    lock_paths = []

    def remove_and_lock(descriptor):
        lock(descriptor)
        if not lock_paths:
            lock_paths.extend(tmp_path.iterdir())
            lock_paths[0].unlink()  # as the former writer does, between this one's open and its lock

    lock = files._lock
    monkeypatch.setattr(files, "_lock", remove_and_lock)
    with files.only_writer(tmp_path / "text", wait=False):
        assert list(tmp_path.iterdir()) == lock_paths


def hash_cache(workspace):
    files = [file for file in (workspace.path / ".dvc/cache/files").rglob("*") if file.is_file()]
    return {file: hashlib.md5(file.read_bytes()).hexdigest() for file in files}


def test_two_repro_at_once_leave_a_whole_cache_that_agrees_with_the_lock(tiny_workspace):
    # Of the stages after the download, since the download would have to be of a dataset that is known.
    command = ["dvc", "repro", "--single-item", "stats", "normalize", "report"]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            command, cwd=tiny_workspace.path, env=tiny_workspace.environment, stdout=pipe, stderr=pipe, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0 or "lock" in stderr, stderr
    assert any(process.returncode == 0 for process in processes), outputs
    assert all(
        file.parent.name + file.name.removesuffix(".dir") == md5 for file, md5 in hash_cache(tiny_workspace).items()
    )
    assert tiny_workspace.run("dvc", "status", "stats", "normalize", "report").stdout.startswith(
        "Data and pipelines are"
    )
    verify_shards(tiny_workspace.path / "data/shards")


def test_read_only_outs_are_replaced_and_the_cache_stays_as_it_is(tiny_workspace):
    stages = ("stats", "normalize", "report")
    workspace = tiny_workspace
    assert workspace.run("dvc", "repro", "--single-item", *stages).returncode == 0
    before = hash_cache(workspace)
    shard = workspace.path / "data/shards/train/images-00000-of-00001.npy"
    assert shard.stat().st_nlink == 2
    assert not shard.stat().st_mode & 0o222
    workspace.set_param("scheme: dataset", "scheme: unit")
    # As a person might, past DVC, which would remove the outs first.
    for stage in stages:
        done = workspace.pipeline(stage)
        assert done.returncode == 0, done.stderr
    assert shard.stat().st_nlink == 1
    assert hash_cache(workspace) == before
    assert workspace.run("dvc", "checkout", "--force", "normalize", "report").returncode == 0
    workspace.set_param("scheme: unit", "scheme: dataset")
    assert workspace.pipeline("report").returncode == 0
    assert workspace.run("dvc", "status", *stages).stdout.startswith("Data and pipelines are")
    assert hash_cache(workspace) == before
