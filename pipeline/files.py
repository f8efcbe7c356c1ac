"""Files and folders that appear under their final name only when they are whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pipeline.errors import PipelineError


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_path = _temp_sibling(path)
    try:
        with temp_path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temp_path.replace(path)
    finally:
        temp_path.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write JSON whose bytes follow from `data` alone. Keys keep their order: red comes before green and blue."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


@contextmanager
def replace_dir(target_dir: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `target_dir` when the block succeeds.

    Files in `target_dir` may be hard links into DVC's cache: they are unlinked, never written into. When the block
    raises, `target_dir` is as it was. Raises PipelineError where the disk is full or can't be written.
    """
    target_dir = target_dir.resolve()  # it may be a link to another disk
    staging_dir = _temp_sibling(target_dir)
    old_dir = _temp_sibling(target_dir)
    try:
        staging_dir.mkdir(parents=True)
        yield staging_dir
        if target_dir.exists():
            target_dir.rename(old_dir)
        staging_dir.rename(target_dir)
    except BaseException as error:
        if old_dir.exists() and not target_dir.exists():
            old_dir.rename(target_dir)
        if isinstance(error, OSError) and str(error.filename or staging_dir).startswith(str(staging_dir)):
            raise PipelineError(f"{target_dir}: can't be written: {error.strerror}") from error
        raise
    finally:
        for leftover in (staging_dir, old_dir):
            if leftover.exists():
                # Renamed first: a thread that Ctrl-C left at work can't add a file to it while it is removed.
                shutil.rmtree(leftover.rename(_temp_sibling(target_dir)), ignore_errors=True)


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _temp_sibling(path: Path) -> Path:
    # In the same folder, so that a rename stays on one file system; .gitignore and .dvcignore know the pattern.
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")
