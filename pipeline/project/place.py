"""Where a project begins: the repository around it, what is there already, and the way to its images."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from shardset.manifest import UNPRINTABLE


def find_repository(folder: Path) -> Path | None:
    """Return the top folder of the DVC repository that holds a folder, or None."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), None)


def source_path(project_dir: Path, source: Path) -> str:
    """Return the path for params.yaml: relative inside the repository, so that clones have it, otherwise absolute."""
    path = _resolve_parent(source)
    repository = find_repository(project_dir)
    is_inside = repository is not None and path.is_relative_to(repository)
    return Path(os.path.relpath(path, project_dir) if is_inside else path).as_posix()


def is_tracked(project_dir: Path, source: Path) -> bool:
    """Whether DVC or git has the images already."""
    path = _resolve_parent(source)
    if any(Path(f"{parent}.dvc").is_file() for parent in (path, *path.parents)):
        return True
    try:
        command = ["git", "ls-files", "--", str(path)]
        done = subprocess.run(command, cwd=project_dir, capture_output=True, check=False)  # noqa: S603
    except FileNotFoundError:  # DVC works without git
        return False
    return bool(done.stdout)


def find_obstacles(project_dir: Path, source: Path, new_files: Iterable[str], outs: Iterable[str]) -> list[str]:
    """List why a project for `source` can't begin in a folder without overwriting anything.

    `new_files` would be written at once, and `outs` by `dvc repro`: paths relative to the folder, which is absolute.
    """
    outs, images = [*outs], source.resolve()
    overlapping = [
        out for out in outs if images.is_relative_to(project_dir / out) or (project_dir / out).is_relative_to(images)
    ]
    obstacles = [
        f"{name}: exists, and would be overwritten; move it away, or use another folder"
        for name in (*new_files, *outs)
        if name not in overlapping and os.path.lexists(project_dir / name)
    ]
    if overlapping:
        obstacles.append(
            f"source {source}: overlaps {overlapping[0]}, which `dvc repro` overwrites; move the images, for example "
            "to data/images"
        )
    if UNPRINTABLE.search(source_path(project_dir, source)):
        obstacles.append(f"source {str(source)!a}: the path has unprintable characters; rename it")
    if find_repository(project_dir) is None:
        obstacles.append("no DVC repository here; run `git init` and `dvc init` first")
    return obstacles


def _resolve_parent(path: Path) -> Path:
    """Make a path absolute. If it is a link, then that of the link, which may be inside of a repository."""
    return path.parent.resolve() / path.name
