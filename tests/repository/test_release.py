"""The commands of docs/releasing.md, the steps of the workflow that publishes a release, and its version."""

import json
import os
import re
import shutil
import tomllib

import pytest
import yaml

from tests.helpers.pages import find_blocks
from tests.helpers.workflows import run_step, steps_of
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds, commit, make_workspace, register_dataset

VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()
GH = """#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument"; done > called
"""
STEP = "Check the version and take its notes from the changelog"
only_on_posix = pytest.mark.skipif(os.name == "nt", reason="the runner of this workflow has Linux")


def released_versions():
    """The versions of the changelog with their dates, newest first."""
    return re.findall(r"^## ([0-9.]+) - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)


def test_version_and_date_are_the_same_everywhere():
    assert CITATION["version"] == VERSION
    assert (VERSION, CITATION["date-released"].isoformat()) == released_versions()[0]
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert len(headings) - len(released_versions()) == headings.count("Unreleased")


@pytest.fixture
def checkout(tmp_path):
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return Workspace(tmp_path)


@only_on_posix
def test_notes_are_the_section_of_the_version(checkout):
    earlier = "\n## 0.0.9 - 2026-01-01\n\n- Earlier.\n"
    heading = f"## {VERSION} - "
    changelog = CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n- Later.\n") + earlier
    (checkout.path / "CHANGELOG.md").write_text(changelog)
    run_step(checkout, "release", STEP, GITHUB_REF_NAME=f"v{VERSION}")
    notes = (checkout.path / "notes.md").read_text()
    assert notes.strip() == CHANGELOG.partition(heading)[2].partition("\n")[2].partition("\n## ")[0].strip()
    assert "\n- " in notes
    assert "Later." not in notes
    assert "Earlier." not in notes


@only_on_posix
@pytest.mark.parametrize(
    ("file", "line"),
    [("pyproject.toml", f'version = "{VERSION}"'), ("CITATION.cff", f"version: {VERSION}"), ("CHANGELOG.md", "## 0")],
)
def test_file_with_another_version_stops_the_release(file, line, checkout):
    path = checkout.path / file
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, line.replace("0", "9", 1)))
    with pytest.raises(AssertionError):
        run_step(checkout, "release", STEP, GITHUB_REF_NAME=f"v{VERSION}")


@only_on_posix
def test_release_has_the_distribution_and_the_figures(tmp_path):
    figures = ["data/stats.json", "data/audit.json", "data/report/report.md"]
    assert all((REPOSITORY / name).exists() for name in figures)
    upload, download = (step["with"] for step in steps_of("release") if "-artifact@" in step.get("uses", ""))
    assert upload["path"].split() == ["notes.md", "dist/", *figures]
    assert download == {"name": upload["name"]}
    for name in ("bin/gh", "notes.md", "dist/a.tar.gz", "dist/a.whl", *figures):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run_step(Workspace(tmp_path), "release", "Publish", PATH=path, GITHUB_REF_NAME="v0.1.0", GH_REPO="", GH_TOKEN="")
    arguments = (tmp_path / "called").read_text().split()
    assert arguments[:4] == ["release", "create", "v0.1.0", "--verify-tag"]
    assert arguments[arguments.index("--notes-file") + 1 :] == ["notes.md", "dist/a.tar.gz", "dist/a.whl", *figures]


@only_on_posix
@pytest.mark.slow
def test_commands_of_the_page_release_a_version(tiny, tmp_path):
    *release, verify = find_blocks((REPOSITORY / "docs/releasing.md").read_text())
    workspace = make_workspace(tmp_path / "clone")
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts())
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    workspace.repro(PIPELINE_SOURCE=str(tiny.write_files(tmp_path / "source")))
    commit(workspace, "Release 0.1.0", "v0.1.0")
    for command in (
        ["init", "--quiet", "--bare", "../origin"],
        ["remote", "add", "origin", str(tmp_path / "origin")],
        ["push", "--quiet", "--set-upstream", "origin", "HEAD"],
    ):
        assert_succeeds(workspace.run("git", *command))
    workspace.set_param("dtype: float32", "dtype: uint8")
    assert_succeeds(workspace.run("bash", "-e", "-c", "".join(release)))
    assert workspace.run("git", "status", "--porcelain").stdout == ""
    for name in ("cifar10-raw", "cifar10-shards", "cifar10-stats"):
        get = ("dvc", "artifacts", "get", (tmp_path / "origin").as_uri(), name, "--rev", "v0.2.0")
        assert_succeeds(workspace.run(*get, "--out", tmp_path / name))
    assert json.loads((tmp_path / "cifar10-shards/manifest.json").read_bytes())["dtype"] == "uint8"
    output = assert_succeeds(workspace.run("bash", "-e", "-c", verify))
    assert "3x32x32 uint8" in output.splitlines()[-1]
    assert output.endswith("every file matches the manifest\n")
