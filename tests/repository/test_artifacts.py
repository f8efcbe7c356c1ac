"""The artifacts of dvc.yaml, as other repositories find them by name and version."""

import json

import pytest
import yaml

from pipeline.project.files import read_template
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds, make_repository

DVC_YAML = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())


def add_tag(repository, tag):
    assert_succeeds(repository.run("git", "tag", "--annotate", tag, "--message", tag))


def dtype_of(folder):
    return json.loads((folder / "manifest.json").read_bytes())["dtype"]


def test_artifacts_are_the_outs_that_others_use():
    outs = {
        name: out for stage in DVC_YAML["stages"].values() for entry in stage["outs"] for name, out in entry.items()
    }
    artifacts = DVC_YAML["artifacts"]
    assert {name: artifact["path"] for name, artifact in artifacts.items()} == {
        "cifar10-raw": "data/raw",
        "cifar10-shards": "data/shards",
        "cifar10-stats": "data/stats.json",
    }
    for artifact in artifacts.values():
        assert artifact["type"] == "dataset"
        assert artifact["desc"] == outs[artifact["path"]]["desc"]
        assert artifact["labels"]


@pytest.mark.slow
def test_artifact_without_a_version_is_the_latest(upstream, downstream):
    assert_succeeds(downstream.run("dvc", "artifacts", "get", upstream.path.as_uri(), "cifar10-shards"))
    assert dtype_of(downstream.path / "shards") == "uint8"


@pytest.mark.slow
def test_only_annotated_tags_of_an_artifact_are_its_versions(upstream, downstream, tmp_path):
    clone = Workspace(tmp_path / "clone", home=downstream.home)
    assert_succeeds(upstream.run("git", "clone", "--quiet", upstream.path, clone.path))
    assert_succeeds(clone.run("git", "tag", "v0.3.0"))
    assert_succeeds(clone.run("git", "tag", "cifar10-shards@v0.3.0"))
    done = downstream.run("dvc", "artifacts", "get", clone.path, "cifar10-shards", "--rev", "v0.3.0")
    assert done.returncode != 0
    assert "Unable to find artifact 'cifar10-shards @ v0.3.0'" in done.stderr


@pytest.mark.slow
def test_artifacts_show_gives_path_and_commit(upstream, downstream):
    program = (
        "import json, sys, dvc.api\n"
        "print(json.dumps(dvc.api.artifacts_show('cifar10-shards', version='v0.1.0', repo=sys.argv[1])))\n"
    )
    released = assert_succeeds(upstream.run("git", "rev-parse", "v0.1.0^{commit}")).strip()
    shown = json.loads(assert_succeeds(downstream.run("python", "-c", program, upstream.path)))
    assert shown == {"rev": released, "path": "data/shards"}


@pytest.mark.slow
def test_dataset_of_a_consumer_stays_at_its_version_until_an_update(upstream, downstream):
    add = ("dvc", "ds", "add", "cifar10", "--dvc", upstream.path, "--path", "data/shards", "--rev", "v0.1.0")
    assert_succeeds(downstream.run(*add))
    (downstream.path / "train.py").write_text(
        "import json, dvc.api\n"
        "dataset = dvc.api.get_dataset('cifar10')\n"
        "fs = dvc.api.DVCFileSystem(dataset['url'], rev=dataset['sha'])\n"
        "fs.get(dataset['path'], 'shards', recursive=True)\n"
        "print(json.load(open('shards/manifest.json'))['dtype'])\n"
    )
    # DVC removes outs before it runs a stage. If shards existed, they would be put inside.
    outs = ["dtype.txt", "shards"]
    stage = {"cmd": "python train.py > dtype.txt", "deps": ["train.py", "ds://cifar10"], "outs": outs}
    dvc_yaml = yaml.safe_load((downstream.path / "dvc.yaml").read_text())
    (downstream.path / "dvc.yaml").write_text(yaml.safe_dump(dvc_yaml | {"stages": {"train": stage}}))
    assert downstream.repro() == {"train"}
    assert downstream.repro() == set()
    assert (downstream.path / "dtype.txt").read_text() == "float32\n"
    assert_succeeds(downstream.run("dvc", "ds", "update", "cifar10", "--rev", "v0.2.0"))
    assert downstream.repro() == {"train"}
    assert (downstream.path / "dtype.txt").read_text() == "uint8\n"


@pytest.mark.slow
def test_artifact_of_a_project_in_a_folder_has_the_folder_in_its_name(downstream, tmp_path):
    outer = make_repository(tmp_path / "outer")
    folder = outer.path / "clothes"
    (folder / "data").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(read_template("dvc.yaml").replace("${images.source}", "images"))
    (folder / "data/stats.json").write_text("{}\n")
    assert_succeeds(outer.run("git", "add", "--all"))
    assert_succeeds(outer.run("git", "commit", "--quiet", "--message", "A project"))
    add_tag(outer, "clothes=stats@v0.1.0")
    assert_succeeds(downstream.run("dvc", "artifacts", "get", outer.path, "clothes:stats", "--rev", "v0.1.0"))
    assert (downstream.path / "stats.json").read_text() == "{}\n"
