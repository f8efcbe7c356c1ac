"""What the docs say about the workflows on GitHub, and that nothing in pyproject.toml is excused without a reason."""

import re
import tomllib

import pytest
import yaml

from tests.helpers.workspace import REPOSITORY

FOLDER = REPOSITORY / ".github/workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yml")}
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()


def steps_of(workflow):
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"]]


def commands_of(workflow):
    return "\n".join(step.get("run", "") for step in steps_of(workflow))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflow_can_only_read_and_pins_its_actions(workflow):
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOWS[workflow]["jobs"].values())
    actions = [step["uses"] for step in steps_of(workflow) if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)


def test_release_builds_and_checks_but_publishes_nothing():
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    commands = commands_of("release")
    assert "python -m build" in commands
    assert "twine check --strict" in commands
    assert "upload" not in commands


def test_tests_run_on_three_systems_and_the_audit_each_week():
    jobs = WORKFLOWS["ci"]["jobs"]
    systems = {job["runs-on"] for job in jobs.values()} | {*jobs["ci"]["strategy"]["matrix"]["os"]}
    assert systems >= {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert WORKFLOWS["ci"][True]["schedule"] == [{"cron": "0 6 * * 1"}]
    assert "pip_audit --requirement constraints.txt" in jobs["audit"]["steps"][-1]["run"]


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == tomllib.loads(PYPROJECT)["project"]["version"]


def test_every_lint_exception_has_a_reason():
    lint = PYPROJECT.partition("[tool.ruff.lint]")[2].partition("[tool.mypy]")[0]
    sections = re.findall(r"^(.*) = \[(.*?)\](.*)$", lint, re.DOTALL | re.MULTILINE)
    lines = [line for _, listed, rest in sections for line in f"{listed}{rest}".splitlines()]
    excused = [line for line in lines if re.search(r'"[A-Z]+[0-9]*"', line) and "select" not in line]
    assert excused
    assert [line for line in excused if "#" not in line and line != '"ALL"'] == []
