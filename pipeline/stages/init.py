"""Command `init`: a new project for your own images, in a repository of your own."""

import os
import shlex
import subprocess
from pathlib import Path

from pipeline.project.files import NAMES, add_missing_lines, find_outs, read_template, render_params
from pipeline.project.suggest import Suggestion
from pipeline.runtime.files import write_text
from shardset.errors import InputError
from shardset.manifest import UNPRINTABLE

MAX_FILES = 50_000  # in a folder, before it is better to have one archive


def check_project_dir(project_dir: Path, source: Path) -> None:
    """Raise InputError unless a project for `source` can begin in a folder, an absolute path, without overwriting.

    It lists all reasons.
    """
    outs, images = find_outs(), source.resolve()
    overlapping = [
        out for out in outs if images.is_relative_to(project_dir / out) or (project_dir / out).is_relative_to(images)
    ]
    existing = [name for name in ("dvc.yaml", "params.yaml", *outs) if os.path.lexists(project_dir / name)]
    reasons = [
        f"{name}: exists, and would be overwritten; move it away, or use another folder"
        for name in existing
        if name not in overlapping
    ]
    if overlapping:
        reasons.append(
            f"source {source}: overlaps {overlapping[0]}, which `dvc repro` overwrites; move the images, for example "
            "to data/images"
        )
    if UNPRINTABLE.search(_source_from(project_dir, source)):
        reasons.append(f"source {str(source)!a}: the path has unprintable characters; rename it")
    if _find_repository(project_dir) is None:
        reasons.append("no DVC repository here; run `git init` and `dvc init` first")
    if reasons:
        raise InputError("\n".join(reasons))


def write_project(project_dir: Path, source: Path, suggestion: Suggestion) -> list[str]:
    """Write the files of a project into a checked folder; return the names of those that were written.

    Files that have lists of names keep what they have.
    """
    texts: dict[str, str] = {}
    for name in NAMES:
        path = project_dir / name
        if name == "params.yaml":
            texts[name] = render_params(_source_from(project_dir, source), suggestion)
        elif name == "dvc.yaml":
            texts[name] = read_template(name)
        else:
            text = _read(path)
            if (with_missing := add_missing_lines(text, name)) != text:
                texts[name] = with_missing
    for name, text in texts.items():
        write_text((project_dir / name).resolve(), text)  # it may be a link
    return [*texts]


def next_steps(project_dir: Path, source: Path) -> str:
    """Say which commands come next, one a line."""
    lines = ["Next:"]
    path = _source_from(project_dir, source)
    num_files = sum(len(names) for _, _, names in os.walk(source))  # none in an archive
    if num_files > MAX_FILES:
        archive = f"{path}.tar"
        lines += [
            f"  {shlex.join(['tar', '-cf', archive, '-C', path, '.'])}",
            f"    DVC looks at each of the {num_files:,} files, every time. One archive it copes with. Then set",
            f"    images.source to {archive} in params.yaml.",
        ]
        path = archive
    if not Path(path).is_absolute() and not _is_tracked(project_dir, source):
        lines += [f"  {shlex.join(['dvc', 'add', path])}", "    DVC then keeps this version of the images."]
    return "\n".join([*lines, "  dvc repro"])


def _find_repository(folder: Path) -> Path | None:
    return next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), None)


def _source_from(project_dir: Path, source: Path) -> str:
    """Return the path to write: inside the repository a relative one, which clones share, otherwise an absolute one."""
    path = source.parent.resolve() / source.name
    repository = _find_repository(project_dir)
    is_inside = repository is not None and path.is_relative_to(repository)
    return Path(os.path.relpath(path, project_dir) if is_inside else path).as_posix()


def _is_tracked(project_dir: Path, source: Path) -> bool:
    """Whether DVC or git has the images already."""
    path = source.parent.resolve() / source.name
    if any(Path(f"{parent}.dvc").is_file() for parent in (path, *path.parents)):
        return True
    try:
        command = ["git", "ls-files", "--", str(path)]
        done = subprocess.run(command, cwd=project_dir, capture_output=True, check=False)  # noqa: S603
    except FileNotFoundError:  # DVC works without git
        return False
    return bool(done.stdout)


def _read(path: Path) -> str:
    """Read a text with its own line endings. A file that is not there is empty."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise InputError(f"{path}: not valid UTF-8, so no lines can be added") from None
