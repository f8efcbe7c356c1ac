"""The workflows on GitHub, and their steps run as a runner does."""

import yaml

from tests.helpers.workspace import REPOSITORY, assert_succeeds

FOLDER = REPOSITORY / ".github/workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yml")}


def jobs_of(workflow):
    return WORKFLOWS[workflow]["jobs"]


def steps_of(workflow):
    return [step for job in jobs_of(workflow).values() for step in job["steps"]]


def run_step(workspace, workflow, name, **env):
    """Run the commands of a step in a repository, with values instead of the expressions in its environment."""
    (step,) = (step for step in steps_of(workflow) if step.get("name") == name)
    assert "${{" not in step["run"]  # what comes from outside reaches the commands as variables only
    assert set(step.get("env", {})) <= set(env)
    return assert_succeeds(workspace.run("bash", "-e", "-c", step["run"], **env))
