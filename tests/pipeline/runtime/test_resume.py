import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from pipeline.errors import PipelineError
from pipeline.runtime.resume import SET_NAME, open_step, resume_dir
from shardset.manifest import SetFile
from shardset.models import Model
from tests.helpers.workspace import REPOSITORY


class Letter(Model, frozen=True):
    file: SetFile
    note: bytes = b""

    @property
    def files(self):
        return (self.file,)


@pytest.fixture
def step(tmp_path):
    return open_step(tmp_path, "letters", 1)


def write_letter(step, name):
    (step.dir / name).write_text(name)
    return Letter(
        file=SetFile(path=name, bytes=len(name), sha256=hashlib.sha256(name.encode()).hexdigest()), note=b"\0"
    )


def finish(step, name, made):
    """Finish a task that writes its name into a file, and note in `made` that it was run."""
    step.finish(name, Letter, lambda: (made.append(name), write_letter(step, name))[1])


def test_finished_task_is_not_run_again(step):
    made: list[str] = []
    for _ in range(2):
        for name in ("a", "b"):
            finish(step, name, made)
    assert made == ["a", "b"]
    assert step.read("a", Letter) == write_letter(step, "a")


@pytest.mark.parametrize("fault", ["changed", "truncated", "missing", "damaged record", "empty record", "no record"])
def test_task_that_is_not_proven_is_run_again(fault, step):
    made: list[str] = []
    finish(step, "abc", made)
    file, record = step.dir / "abc", step.records_dir / "abc"
    match fault:
        case "changed":
            file.write_text("abx")
        case "truncated":
            file.write_text("ab")
        case "missing":
            file.unlink()
        case "damaged record":
            record.write_bytes(record.read_bytes()[:-1] + b"?")
        case "empty record":
            record.write_bytes(b"")
        case "no record":
            record.unlink()
    finish(step, "abc", made)
    assert made == ["abc", "abc"]
    assert file.read_text() == "abc"
    assert step.find("abc", Letter)


@pytest.mark.parametrize("inputs", [(2,), (1, 1), ("1",), ()])
def test_leftovers_of_other_inputs_are_removed(inputs, step, tmp_path):
    finish(step, "a", [])
    other = open_step(tmp_path, "letters", *inputs)
    assert other.find("a", Letter) is None
    assert [*other.dir.iterdir()] == []


def test_leftovers_of_the_same_inputs_are_kept(step, tmp_path):
    finish(step, "a", [])
    assert open_step(tmp_path, "letters", 1).find("a", Letter)


def test_leftovers_of_other_code_are_removed(step, tmp_path, monkeypatch):
    finish(step, "a", [])
    monkeypatch.setattr("pipeline.runtime.resume.installed_version", lambda: "another version")
    assert open_step(tmp_path, "letters", 1).find("a", Letter) is None


def test_task_of_an_earlier_run_finds_its_folder_gone(step, tmp_path):
    open_step(tmp_path, "letters", 2)
    with pytest.raises(FileNotFoundError):
        finish(step, "a", [])


def run(target_dir, made, interrupt=lambda: None, *, fresh=False):
    """Write a set of two files; `interrupt` is called after the first one."""
    with resume_dir(target_dir, fresh=fresh) as work_dir:
        step = open_step(work_dir, SET_NAME)
        finish(step, "a", made)
        interrupt()
        finish(step, "b", made)


def fail():
    raise ZeroDivisionError


def read(target_dir):
    return {path.name: path.read_text() for path in target_dir.iterdir()}


def test_failed_run_goes_on_where_it_was(tmp_path):
    made: list[str] = []
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "set", made, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".set.work.tmp"]
    run(tmp_path / "set", made)
    assert made == ["a", "b"]
    assert read(tmp_path / "set") == {"a": "a", "b": "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_run_that_goes_on_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "set", [], fail)
    assert caplog.messages == []
    run(tmp_path / "set", [])
    assert caplog.messages == ["Resuming an interrupted run, finished tasks: 1"]


def test_fresh_run_starts_over(tmp_path):
    made: list[str] = []
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "set", made, fail)
    run(tmp_path / "set", made, fresh=True)
    assert made == ["a", "a", "b"]


def test_run_after_a_complete_one_starts_over(tmp_path):
    made: list[str] = []
    for _ in range(2):
        run(tmp_path / "set", made)
    assert made == ["a", "b", "a", "b"]


def test_failed_run_keeps_the_earlier_output(tmp_path):
    run(tmp_path / "set", [])
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "set", [], fail)
    assert read(tmp_path / "set") == {"a": "a", "b": "b"}


def test_failure_before_the_first_finished_task_leaves_nothing(tmp_path):
    def write_nothing():
        with resume_dir(tmp_path / "set") as work_dir:
            open_step(work_dir, SET_NAME)
            fail()

    with pytest.raises(ZeroDivisionError):
        write_nothing()
    assert [*tmp_path.iterdir()] == []


def test_second_process_is_refused(tmp_path):
    with (
        pytest.raises(PipelineError, match="another process is writing to it"),
        resume_dir(tmp_path / "set"),
        resume_dir(tmp_path / "set"),
    ):
        pass


def test_full_disk_names_the_output(tmp_path):
    def fill_the_disk():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / ".set.work.tmp/set/a"))

    with pytest.raises(PipelineError, match=rf"^{tmp_path / 'set'}: can't be written: No space left on device$"):
        run(tmp_path / "set", [], fill_the_disk)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_killed_run_goes_on_where_it_was(tmp_path):
    code = (
        "import os, runpy, signal, sys; from pathlib import Path; run = runpy.run_path(sys.argv[1])['run']; "
        "run(Path(sys.argv[2]), [], lambda: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, __file__, tmp_path / "set"], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    made: list[str] = []
    run(tmp_path / "set", made)
    assert made == ["b"]
    assert read(tmp_path / "set") == {"a": "a", "b": "b"}
