"""What the docs say about the workflows on GitHub, and that nothing in pyproject.toml is excused without a reason."""

import re

import pytest

from tests.helpers.workflows import WORKFLOWS, jobs_of, steps_of
from tests.helpers.workspace import REPOSITORY

PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()
# The jobs that may write, and what. They run none of the repository's code.
WRITING_JOBS = {
    ("docs", "deploy"): {"pages": "write", "id-token": "write"},
    ("release", "publish"): {"contents": "write"},
}


def commands_of(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflow_can_only_read_and_pins_its_actions(workflow):
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}
    permissions = {
        (workflow, name): job["permissions"] for name, job in jobs_of(workflow).items() if "permissions" in job
    }
    assert permissions == {job: allowed for job, allowed in WRITING_JOBS.items() if job[0] == workflow}
    actions = [step["uses"] for step in steps_of(workflow) if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_pull_requests_and_their_code_get_no_token_to_write(workflow):
    triggers = WORKFLOWS[workflow][True]  # YAML 1.1 reads the key `on` as true
    assert not {"pull_request_target", "workflow_run"} & {*triggers}
    for name, job in jobs_of(workflow).items():
        if (workflow, name) in WRITING_JOBS:
            assert "pull_request" not in triggers
            assert not any(step.get("uses", "").startswith("actions/checkout") for step in job["steps"])


def test_release_is_built_and_checked_before_it_is_published():
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}
    jobs = jobs_of("release")
    commands = commands_of(jobs["build"])
    assert "python -m build" in commands
    assert "twine check --strict" in commands
    assert jobs["publish"]["needs"] == "build"
    assert not any("twine upload" in commands_of(job) for job in jobs.values())


def test_tests_run_on_three_systems_and_the_audit_each_week():
    jobs = jobs_of("ci")
    systems = {job["runs-on"] for job in jobs.values()} | {*jobs["ci"]["strategy"]["matrix"]["os"]}
    assert systems >= {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert WORKFLOWS["ci"][True]["schedule"] == [{"cron": "0 6 * * 1"}]
    assert "pip_audit --requirement constraints.txt" in jobs["audit"]["steps"][-1]["run"]


def test_every_lint_exception_has_a_reason():
    lint = PYPROJECT.partition("[tool.ruff.lint]")[2].partition("[tool.mypy]")[0]
    sections = re.findall(r"^(.*) = \[(.*?)\](.*)$", lint, re.DOTALL | re.MULTILINE)
    lines = [line for _, listed, rest in sections for line in f"{listed}{rest}".splitlines()]
    excused = [line for line in lines if re.search(r'"[A-Z]+[0-9]*"', line) and "select" not in line]
    assert excused
    assert [line for line in excused if "#" not in line and line != '"ALL"'] == []
