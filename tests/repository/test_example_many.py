"""examples/many as a repository of its own: the commands of its README, with generated data in place of CIFAR-10."""

import re
import shutil

import pytest
import yaml

from pipeline.params import load_params
from pipeline.project.files import read_template
from shardset import open_shards
from tests.helpers.image_files import make_image_folder
from tests.helpers.pages import find_blocks
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds

EXAMPLE = REPOSITORY / "examples/many"
COMMANDS, EXPERIMENT = find_blocks((EXAMPLE / "README.md").read_text())
DATASETS = ("cifar10", "clothes")
# The environment of the tests has the pipeline.
INSTALL = (
    "cp -R examples/many ../datasets && cd ../datasets\n",
    "python3 -m venv .venv && source .venv/bin/activate\n",
    "pip install -e ../cifar-pipeline\n",
)
USER = {f"GIT_{role}_{key}": f"test@{key}" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}


def test_stages_are_those_of_a_project():
    stages = yaml.safe_load(read_template("dvc.yaml"))["stages"]
    dvc_yaml = yaml.safe_load((EXAMPLE / "dvc.yaml").read_text())
    assert dvc_yaml["vars"] == [{"datasets": [*DATASETS]}]
    for dataset in DATASETS:
        stage = dvc_yaml["stages"].pop(f"download-{dataset}")
        deps = ["images"] if load_params(EXAMPLE / dataset / "params.yaml").dataset == "images" else None
        assert (stage.pop("wdir"), stage.pop("deps", None)) == (dataset, deps)
        assert stage == {key: value for key, value in stages["download"].items() if key != "deps"}
    del stages["download"]
    each = {"matrix": {"dataset": "${datasets}"}, "wdir": "${item.dataset}"}
    assert dvc_yaml["stages"] == {name: each | stage for name, stage in stages.items()}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Workspace:
    """A copy of the example in which the commands of its README have run."""
    repository = Workspace(tmp_path_factory.mktemp("many") / "datasets")
    shutil.copytree(EXAMPLE, repository.path)
    make_image_folder(repository.path.parent / "home/pictures", ("train", "test"))
    params_path = repository.path / "cifar10/params.yaml"
    params_path.write_text(params_path.read_text().replace("dataset: cifar10", "dataset: synthetic"))
    commands = COMMANDS
    for line in INSTALL:
        assert line in commands
        commands = commands.replace(line, "")
    assert_succeeds(repository.run("bash", "-euc", commands, **USER))
    return repository


def run_stages(output):
    return re.findall(r"^Running stage '(.+)'", output, re.MULTILINE)


@pytest.mark.slow
def test_each_dataset_has_its_own_shards_and_report(repository):
    manifests = {dataset: open_shards(repository.path / dataset / "data/shards").manifest for dataset in DATASETS}
    assert {dataset: manifest.image_shape for dataset, manifest in manifests.items()} == {
        "cifar10": (3, 32, 32),
        "clothes": (3, 64, 64),
    }
    assert manifests["clothes"].splits["train"].samples == 6
    assert all((repository.path / dataset / "data/report/report.html").exists() for dataset in DATASETS)
    assert assert_succeeds(repository.run("git", "status", "--porcelain")) == ""
    assert repository.repro() == set()


@pytest.mark.slow
def test_experiment_runs_only_the_stages_of_its_dataset(repository):
    output = assert_succeeds(repository.run("bash", "-euc", EXPERIMENT, **USER))
    assert run_stages(output) == ["normalize@clothes", "report@clothes"]
    assert re.search(r"^clothes/params.yaml +normalize.scheme +dataset +imagenet", output, re.MULTILINE)
    assert "cifar10/" not in output.partition("Experiment results")[2]
