import errno
import hashlib
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.runtime import locks
from pipeline.runtime.files import replace_dir, write_text
from pipeline.runtime.locks import exclusive_lock, temp_sibling
from shardset.shards import verify_shards
from tests.helpers.workspace import assert_fails


@pytest.fixture
def workspace_with_stats(workspace, tiny_raw):
    """A workspace with the tiny dataset's data/raw and stats.json."""
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    assert workspace.pipeline("stats").returncode == 0
    return workspace


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_temp_sibling_is_hidden_and_in_the_same_folder(tmp_path):
    assert temp_sibling(tmp_path / "a.json", "new") == tmp_path / ".a.json.new.tmp"


def test_held_lock_is_an_error_without_waiting(tmp_path):
    path = tmp_path / "set"
    message = f"^{path}: another process is writing to it. Try again when it has finished.$"
    with exclusive_lock(path, wait=False):
        with pytest.raises(PipelineError, match=message), exclusive_lock(path, wait=False):
            raise AssertionError
        assert names_in(tmp_path) == [".set.lock.tmp"]
    assert names_in(tmp_path) == []
    with exclusive_lock(path, wait=False):
        pass


def test_waiting_lock_is_taken_after_release(tmp_path):
    order = []

    def take():
        with exclusive_lock(tmp_path / "set", wait=True):
            order.append("second")

    with exclusive_lock(tmp_path / "set", wait=False):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert names_in(tmp_path) == []


def test_locks_on_other_paths_are_independent(tmp_path):
    with replace_dir(tmp_path / "one") as one, replace_dir(tmp_path / "one.new") as other:
        (one / "a").touch()
        (other / "b").touch()
    assert {name: names_in(tmp_path / name) for name in names_in(tmp_path)} == {"one": ["a"], "one.new": ["b"]}


def test_lock_of_killed_process_is_released(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipeline.runtime.locks import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), wait=False):\n  os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "set"], check=False)
    assert names_in(tmp_path) == [".set.lock.tmp"]
    with exclusive_lock(tmp_path / "set", wait=False):
        pass
    assert names_in(tmp_path) == []


def test_lock_file_removed_by_previous_holder_is_ignored(tmp_path, monkeypatch):
    lock_paths: list[Path] = []

    def remove_and_lock(descriptor):
        lock(descriptor)
        if not lock_paths:
            lock_paths.extend(tmp_path.iterdir())
            lock_paths[0].unlink()  # as the previous holder does, after this one opened the file

    lock = locks._lock
    monkeypatch.setattr(locks, "_lock", remove_and_lock)
    with exclusive_lock(tmp_path / "text", wait=False):
        assert list(tmp_path.iterdir()) == lock_paths


def test_lock_file_removed_while_held_changes_nothing(tmp_path):
    # As `git clean -fdX` does.
    with exclusive_lock(tmp_path / "set", wait=False):
        (tmp_path / ".set.lock.tmp").unlink()
    with replace_dir(tmp_path / "set") as new_dir:
        (new_dir / "file").touch()
        (tmp_path / ".set.lock.tmp").unlink()
    assert {name: names_in(tmp_path / name) for name in names_in(tmp_path)} == {"set": ["file"]}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_file_system_without_locks_is_written(number, tmp_path, monkeypatch):
    def lock(descriptor):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(locks, "_lock", lock)
    write_text(tmp_path / "text", "written")
    assert (names_in(tmp_path), (tmp_path / "text").read_text()) == (["text"], "written")


def test_other_errors_of_locking_are_raised(tmp_path, monkeypatch):
    def lock(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks, "_lock", lock)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "text", "written")
    assert not (tmp_path / "text").exists()


@pytest.mark.slow
def test_second_writer_fails_and_first_set_stays(workspace_with_stats):
    workspace = workspace_with_stats
    assert workspace.pipeline("normalize").returncode == 0
    shards_dir = workspace.path / "data/shards"
    workspace.set_param("dtype: float32", "dtype: uint8")
    before = names_in(shards_dir.parent)
    with suppress(ZeroDivisionError), replace_dir(shards_dir) as new_dir:
        done = workspace.pipeline("normalize")
        assert_fails(done, 1, "data/shards: another process is writing to it. Try again when it has finished.\n")
        assert done.stderr.count("\n") == 1
        assert new_dir.exists()
        raise ZeroDivisionError
    assert verify_shards(shards_dir).manifest.dtype == "float32"
    assert names_in(shards_dir.parent) == before
    assert workspace.pipeline("normalize").returncode == 0
    assert verify_shards(shards_dir).manifest.dtype == "uint8"


@pytest.mark.slow
def test_concurrent_repro_keeps_cache_and_lock_intact(workspace_with_stats):
    # Without download, which can only fetch registered datasets.
    workspace = workspace_with_stats
    command = ["dvc", "repro", "--single-item", "stats", "audit", "normalize", "report"]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=workspace.path, env=workspace.environment, stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0 or "lock" in stderr, stderr
    assert any(process.returncode == 0 for process in processes), outputs
    cached = [path for path in (workspace.path / ".dvc/cache/files").rglob("*") if path.is_file()]
    assert cached
    for path in cached:
        assert path.parent.name + path.name.removesuffix(".dir") == hashlib.md5(path.read_bytes()).hexdigest()
    assert workspace.run("dvc", "status", *command[3:]).stdout.startswith("Data and pipelines are")
    verify_shards(workspace.path / "data/shards")
