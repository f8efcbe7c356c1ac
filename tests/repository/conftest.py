import pytest

from tests.helpers.workspace import (
    Workspace,
    assert_succeeds,
    commit,
    make_repository,
    make_workspace,
    register_dataset,
)


@pytest.fixture(scope="session")
def upstream(tiny, tmp_path_factory) -> Workspace:
    """A repository that has released v0.1.0, float32, and v0.2.0, uint8, of the tiny dataset; not to be changed.

    Its user's home directory is next to it. Both versions are in the default remote, and data/shards is an artifact.
    """
    folder = tmp_path_factory.mktemp("upstream")
    workspace = make_workspace(folder / "cifar-pipeline")
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts())
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    source = str(tiny.write_files(folder / "source"))
    for version, dtype in (("v0.1.0", "float32"), ("v0.2.0", "uint8")):
        workspace.set_param("dtype: float32", f"dtype: {dtype}")
        workspace.repro(PIPELINE_SOURCE=source)
        commit(workspace, f"Release the tiny dataset as {dtype}", version)
        tag = f"cifar10-shards@{version}"
        assert_succeeds(workspace.run("git", "tag", "--annotate", tag, "--message", tag))
    return workspace


@pytest.fixture
def downstream(upstream, tmp_path) -> Workspace:
    """An empty repository of the same user, with DVC."""
    return make_repository(tmp_path / "training", home=upstream.path.parent / "home")
