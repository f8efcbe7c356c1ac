"""The files of a new project. Their templates are this repository's own files, as far as a project needs them."""

import re
from pathlib import Path
from string import Template

import yaml

from pipeline.project.suggest import Suggestion

TEMPLATES_DIR = Path(__file__).parent / "templates"
LISTS = (".dvcignore", ".gitignore", ".gitattributes")
NAMES = (*LISTS, "params.yaml", "dvc.yaml")
PLOTS = ("channels.json", "splits.json")  # the templates of `dvc plots` that dvc.yaml names
MAX_LINE = 100_000  # longer than any path


def read_template(name: str) -> str:
    """Return the template of one of NAMES or PLOTS."""
    return (TEMPLATES_DIR / f"{name.removeprefix('.')}.template").read_text(encoding="utf-8")


def render_params(source: str, suggestion: Suggestion) -> str:
    """Render params.yaml for a source of images."""
    return Template(read_template("params.yaml")).substitute(
        source=_quote(source),
        size=suggestion.size,
        resize="" if suggestion.resize is None else f" {suggestion.resize}",  # null is empty, as DVC writes it
        dtype=suggestion.dtype,
        samples_per_shard=suggestion.samples_per_shard,
    )


def add_missing_lines(text: str, name: str) -> str:
    """Add the lines of a template that `text` lacks.

    Of .gitattributes the last line that matches a file counts, so there the added ones go first.
    """
    lines = {line.strip() for line in text.splitlines()}
    missing = [line for line in read_template(name).splitlines() if line and line not in lines]
    if all(line.startswith("#") for line in missing):
        return text
    added = "".join(f"{line}\n" for line in missing)
    if name == ".gitattributes":
        return added + text
    return f"{text.rstrip()}\n\n{added}" if text.strip() else added


def find_outs() -> list[str]:
    """Return the files and folders that the stages write, relative to the project."""
    kinds = ("outs", "metrics", "plots")
    stages = yaml.safe_load(read_template("dvc.yaml"))["stages"].values()
    return [path for stage in stages for kind in kinds for out in stage.get(kind, ()) for path in out]


def _quote(value: str) -> str:
    """Write a string as YAML, also one that YAML 1.2, unlike PyYAML, reads as a number, such as 1e5."""
    style = "'" if re.fullmatch(r"[-+.\w]*\d[-+.\w]*", value) else None
    text: str = yaml.safe_dump(value, allow_unicode=True, default_style=style, width=MAX_LINE)
    return text.removesuffix("\n").removesuffix("\n...")
