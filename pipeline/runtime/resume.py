"""Resuming an interrupted stage: finished tasks are verified by their hashes and reused."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from pipeline.runtime.files import exclusive_writer, hash_file, open_synced, put_in_place, remove_dir
from pipeline.runtime.locks import temp_sibling
from pipeline.runtime.signals import deferred_signals
from pipeline.runtime.tasks import installed_version
from shardset.errors import named_os_errors
from shardset.manifest import SetFile
from shardset.models import render_json

SET_NAME = "set"  # of the step, whose folder becomes the stage's output
RECORDS_SUFFIX = ".records"
KEY_DIGITS = 16
SHA256_BYTES = 32

LOGGER = logging.getLogger(__name__)


class Finished(Protocol):
    """What is kept of a finished task: a msgspec model."""

    @property
    def files(self) -> Sequence[SetFile]:
        """The files that the task has written, relative to the folder of its step."""


F = TypeVar("F", bound=Finished)


@dataclass(frozen=True)
class Step:
    """A folder that the tasks of one step fill, and a record of each finished task. It is small, for a cluster's sake.

    Any number of processes may finish the same task at the same time, since it gives the same bytes.
    """

    dir: Path

    @property
    def records_dir(self) -> Path:
        return self.dir.with_name(f"{self.dir.name}{RECORDS_SUFFIX}")

    @property
    def num_bytes(self) -> int:
        """The size of all files of the step that are there."""
        return sum(path.stat().st_size for path in self.dir.rglob("*") if path.is_file())

    def find(self, task: str, kind: type[F]) -> F | None:
        """Return the record of a task, if there is one and all its files still have the recorded hash."""
        try:
            record = self.read(task, kind)
        except (FileNotFoundError, ValueError):
            return None
        return record if all(self._is_there(file) for file in record.files) else None

    def read(self, task: str, kind: type[F]) -> F:
        """Read the record of a finished task. Raises OSError if there is none, and ValueError if it is damaged."""
        path = self.records_dir / task
        with named_os_errors(path):
            content = path.read_bytes()
        sha256, data = content[:SHA256_BYTES], content[SHA256_BYTES:]
        if hashlib.sha256(data).digest() != sha256:
            raise ValueError(f"{path}: damaged")
        return msgspec.msgpack.decode(data, type=kind)

    def save(self, task: str, record: Finished) -> None:
        """Keep the record of a task whose files are complete and on disk."""
        data = msgspec.msgpack.encode(record)
        path = self.records_dir / task
        temp_path = temp_sibling(path, os.urandom(8).hex())
        with open_synced(temp_path, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        temp_path.replace(path)

    def finish(self, task: str, kind: type[F], make: Callable[[], F]) -> None:
        """Run `make`, which writes a task's files, and keep its record, unless that was done before."""
        if self.find(task, kind) is None:
            self.save(task, make())

    def _is_there(self, file: SetFile) -> bool:
        path = self.dir / file.path
        with named_os_errors(path):
            return path.is_file() and path.stat().st_size == file.bytes and hash_file(path) == file.sha256


def open_step(work_dir: Path, name: str, *inputs: object) -> Step:
    """Open a step of a stage. What an earlier run left of it is kept if that had the same inputs, and removed if not.

    `inputs` is all that the step's files depend on, as plain data. The version of this package is added to it. The hash
    of both is part of the folder's name, so that a task of an earlier run, which may still be running on a cluster,
    finds its folder gone.
    """
    key = hashlib.sha256(render_json([installed_version(), *inputs]).encode()).hexdigest()[:KEY_DIGITS]
    step = Step(work_dir / f"{name}-{key}")
    remove_others(step, name)
    for folder in (step.dir, step.records_dir):
        folder.mkdir(exist_ok=True)
    if num_finished := sum(map(_is_record, step.records_dir.iterdir())):
        LOGGER.info("Resuming an interrupted run, finished tasks: %s", f"{num_finished:,}")
    return step


def remove_others(step: Step, name: str) -> None:
    """Remove the folders of all other steps of this name, the records first, because they vouch for the files."""
    for folder in sorted(step.dir.parent.glob(f"{name}-*"), key=lambda path: path.suffix != RECORDS_SUFFIX):
        if folder not in (step.dir, step.records_dir):
            shutil.rmtree(folder, ignore_errors=True)  # a task of an earlier run may still write there


@contextmanager
def resume_dir(target_dir: Path, *, fresh: bool = False) -> Iterator[Path]:
    """Yield a work folder. The folder of its step SET_NAME replaces `target_dir` when the block succeeds.

    If the block fails or the process is killed, `target_dir` stays as it was, and a work folder with a finished task is
    kept. The next call yields it again, unless it is to start `fresh`. The work folder is next to `target_dir`, where
    DVC doesn't delete it. Errors are those of `replace_dir`.
    """
    target_dir = target_dir.resolve()  # it may be a link to another disk
    work_dir = temp_sibling(target_dir, "work")
    with exclusive_writer(target_dir):
        if fresh:
            remove_dir(work_dir, target_dir)
        work_dir.mkdir(exist_ok=True)
        is_done = False
        try:
            yield work_dir
            (set_dir,) = (path for path in work_dir.glob(f"{SET_NAME}-*") if path.suffix != RECORDS_SUFFIX)
            put_in_place(set_dir, target_dir)
            is_done = True
        finally:
            with deferred_signals():
                if is_done or not _has_records(work_dir):
                    remove_dir(work_dir, target_dir)


def _has_records(work_dir: Path) -> bool:
    return any(map(_is_record, work_dir.glob(f"*{RECORDS_SUFFIX}/*")))


def _is_record(path: Path) -> bool:
    return not path.name.endswith(".tmp")
