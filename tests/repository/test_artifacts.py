"""The artifacts of dvc.yaml, as other repositories find them by name and version."""

import json

import pytest
import yaml

from tests.helpers.workspace import (
    REPOSITORY,
    Workspace,
    assert_succeeds,
    commit,
    make_repository,
    make_workspace,
    register_dataset,
)

DVC_YAML = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
ARTIFACTS = ("cifar10-raw", "cifar10-shards", "cifar10-stats")


@pytest.fixture(scope="module")
def upstream(tiny, tmp_path_factory) -> Workspace:
    """A repository that has released 0.1.0, float32, and 0.2.0, uint8, of the tiny dataset."""
    folder = tmp_path_factory.mktemp("upstream")
    workspace = make_workspace(folder / "cifar-pipeline")
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts())
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    source = str(tiny.write_files(folder / "source"))
    for version, dtype in (("v0.1.0", "float32"), ("v0.2.0", "uint8")):
        workspace.set_param("dtype: float32", f"dtype: {dtype}")
        workspace.repro("normalize", PIPELINE_SOURCE=source)
        commit(workspace, f"Release the tiny dataset as {dtype}", version)
        for name in ARTIFACTS:
            tag = f"{name}@{version}"
            assert_succeeds(workspace.run("git", "tag", "--annotate", tag, "--message", tag))
    return workspace


@pytest.fixture
def downstream(upstream, tmp_path) -> Workspace:
    """An empty repository of the same user, with DVC."""
    return Workspace(make_repository(tmp_path / "training").path, home=upstream.path.parent / "home")


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
def test_artifact_is_found_by_name_and_version(upstream, downstream):
    url = upstream.path.as_uri()
    for repo, name in ((upstream.path, "cifar10-raw"), (url, "cifar10-shards"), (upstream.path, "cifar10-stats")):
        assert_succeeds(downstream.run("dvc", "artifacts", "get", repo, name, "--rev", "v0.1.0"))
    assert (dtype_of(downstream.path / "raw"), dtype_of(downstream.path / "shards")) == ("uint8", "float32")
    assert json.loads((downstream.path / "stats.json").read_bytes())["images"] == 100


@pytest.mark.slow
def test_artifact_without_a_version_is_the_latest(upstream, downstream):
    assert_succeeds(downstream.run("dvc", "artifacts", "get", upstream.path, "cifar10-shards"))
    assert dtype_of(downstream.path / "shards") == "uint8"


@pytest.mark.slow
def test_plain_tag_is_no_version_of_an_artifact(upstream, downstream):
    assert_succeeds(upstream.run("git", "tag", "--annotate", "v0.3.0", "--message", "Without tags of artifacts"))
    done = downstream.run("dvc", "artifacts", "get", upstream.path, "cifar10-shards", "--rev", "v0.3.0")
    assert done.returncode != 0
    assert "Unable to find artifact 'cifar10-shards @ v0.3.0'" in done.stderr


@pytest.mark.slow
def test_artifacts_show_gives_path_and_commit(upstream, downstream):
    program = (
        "import json, sys, dvc.api\n"
        "shown = dvc.api.artifacts_show('cifar10-shards', version='v0.1.0', repo=sys.argv[1])\n"
        "manifest = dvc.api.read(f\"{shown['path']}/manifest.json\", repo=sys.argv[1], rev=shown['rev'])\n"
        "print(json.dumps([shown, json.loads(manifest)['dtype']]))\n"
    )
    shown, dtype = json.loads(assert_succeeds(downstream.run("python", "-c", program, upstream.path)))
    released = assert_succeeds(upstream.run("git", "rev-parse", "v0.1.0^{commit}")).strip()
    assert shown == {"rev": released, "path": "data/shards"}
    assert dtype == "float32"


@pytest.mark.slow
def test_dataset_of_a_consumer_pins_a_version_until_it_is_updated(upstream, downstream):
    add = ("dvc", "ds", "add", "cifar10", "--dvc", upstream.path, "--path", "data/shards", "--rev", "v0.1.0")
    assert_succeeds(downstream.run(*add))
    (downstream.path / "train.py").write_text(
        "import json, dvc.api\n"
        "dataset = dvc.api.get_dataset('cifar10')\n"
        "fs = dvc.api.DVCFileSystem(dataset['url'], rev=dataset['sha'])\n"
        "print(json.loads(fs.read_text(f\"{dataset['path']}/manifest.json\"))['dtype'])\n"
    )
    stage = {"cmd": "python train.py > dtype.txt", "deps": ["train.py", "ds://cifar10"], "outs": ["dtype.txt"]}
    dvc_yaml = yaml.safe_load((downstream.path / "dvc.yaml").read_text())
    (downstream.path / "dvc.yaml").write_text(yaml.safe_dump(dvc_yaml | {"stages": {"train": stage}}))
    assert downstream.repro() == {"train"}
    assert downstream.repro() == set()
    assert (downstream.path / "dtype.txt").read_text() == "float32\n"
    assert_succeeds(downstream.run("dvc", "ds", "update", "cifar10", "--rev", "v0.2.0"))
    assert downstream.repro() == {"train"}
    assert (downstream.path / "dtype.txt").read_text() == "uint8\n"
