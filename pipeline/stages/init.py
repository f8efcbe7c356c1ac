"""Command `init`: a new project for your own images, in a repository of your own."""

import os
import shlex
from pathlib import Path

from pipeline.project.files import LISTS, PLOTS, add_missing_lines, find_outs, read_template, render_params
from pipeline.project.place import find_obstacles, find_repository, is_tracked, source_path
from pipeline.project.suggest import Suggestion
from pipeline.runtime.files import write_text
from shardset.errors import InputError

MAX_FILES = 50_000  # in a folder, before it is better to have one archive


def check_project_dir(project_dir: Path, source: Path) -> None:
    """Raise InputError, with all reasons, unless a project for `source` can begin in a folder, an absolute path."""
    if obstacles := find_obstacles(project_dir, source, ("dvc.yaml", "params.yaml"), find_outs()):
        raise InputError("\n".join(obstacles))


def write_project(project_dir: Path, source: Path, suggestion: Suggestion) -> list[str]:
    """Write the files of a project into a checked folder; return the names of those that were written.

    Lists of files, such as .gitignore, keep what they have, and templates of plots stay as they are.
    """
    existing = {name: _read(project_dir / name) for name in LISTS}
    complete = {name: add_missing_lines(text, name) for name, text in existing.items()}
    texts = {name: text for name, text in complete.items() if text != existing[name]}
    plots_dir = (find_repository(project_dir) or project_dir) / ".dvc/plots"  # where DVC looks for templates
    for name in PLOTS:
        if not (plots_dir / name).exists():
            texts[os.path.relpath(plots_dir / name, project_dir)] = read_template(name)
    texts["params.yaml"] = render_params(source_path(project_dir, source), suggestion)
    texts["dvc.yaml"] = read_template("dvc.yaml")  # last, because DVC finds the project by it
    for name, text in texts.items():
        write_text((project_dir / name).resolve(), text)  # a list may be a link
    return [*texts]


def next_steps(project_dir: Path, source: Path) -> str:
    """Say which commands come next, one a line."""
    steps = ["Next:"]
    path = source_path(project_dir, source)
    num_files = sum(len(names) for _, _, names in os.walk(source))  # none in an archive
    if num_files > MAX_FILES:
        archive = f"{path}.tar"
        steps += [
            f"  {shlex.join(['tar', '-cf', archive, '-C', path, '.'])}",
            f"    DVC looks at each of the {num_files:,} files, every time. One archive it copes with. Then set",
            f"    images.source to {archive} in params.yaml.",
        ]
        path = archive
    if not Path(path).is_absolute() and not is_tracked(project_dir, source):
        steps += [f"  {shlex.join(['dvc', 'add', path])}", "    DVC then keeps this version of the images."]
    return "\n".join([*steps, "  dvc repro"])


def _read(path: Path) -> str:
    """Read a text with its own line endings. A file that is not there is empty."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise InputError(f"{path}: not valid UTF-8, so no lines can be added") from None
