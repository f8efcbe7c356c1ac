"""`dvc repro` after a failure goes on with what was finished, although DVC deletes outputs before it runs a stage."""

import time

import pytest

from tests.helpers.image_files import make_image_folder
from tests.helpers.workspace import assert_fails, hash_files

pytestmark = pytest.mark.slow


def shard_times(folder):
    return {f"{path.parent.name}/{path.name}": path.stat().st_mtime for path in folder.rglob("images-*.npy")}


def test_repaired_image_costs_only_its_own_shard(workspace):
    images_dir = make_image_folder(workspace.path / "data/images")
    workspace.set_param("dataset: cifar10", "dataset: images")
    workspace.set_param("  size: 224", "  size: 32")
    workspace.set_param("  resize: 256", "  resize: 36")
    broken = images_dir / "test/dog/1.jpg"
    content = broken.read_bytes()
    broken.write_bytes(content[:-200])
    done = workspace.run("dvc", "repro", "download")
    assert done.returncode == 255
    assert "1 image can't be read:\n  test/dog/1.jpg: " in done.stderr
    assert not (workspace.path / "data/raw").exists()
    broken.write_bytes(content)
    repaired = time.time()
    assert workspace.repro("download") == {"download"}
    times = shard_times(workspace.path / "data/raw")
    assert len(times) == 3
    assert [name for name in times if times[name] > repaired] == ["test/images-00000-of-00001.npy"]
    assert not [*(workspace.path / "data").glob(".*.tmp")]
    resumed = hash_files(workspace.path / "data/raw")
    assert workspace.repro("--force", "download") == {"download"}
    assert hash_files(workspace.path / "data/raw") == resumed


def test_deleted_outputs_do_not_hide_finished_work(workspace):
    """A first output exists, and a run with other params is stopped."""
    images_dir = make_image_folder(workspace.path / "data/images")
    workspace.set_param("dataset: cifar10", "dataset: images")
    workspace.set_param("  size: 224", "  size: 32")
    workspace.set_param("  resize: 256", "  resize: 36")
    assert workspace.repro("download") == {"download"}
    workspace.set_param("  size: 32", "  size: 24")
    (images_dir / "val/cat/0.jpg").write_bytes((images_dir / "val/cat/0.jpg").read_bytes()[:-200])
    assert workspace.run("dvc", "repro", "download").returncode == 255
    assert not (workspace.path / "data/raw").exists()
    finished = shard_times(workspace.path / "data/.raw.work.tmp")
    done = workspace.pipeline("download")
    assert_fails(done, 2, "val/cat/0.jpg")
    assert shard_times(workspace.path / "data/.raw.work.tmp") == finished
    assert_fails(workspace.pipeline("download", "--fresh"), 2, "val/cat/0.jpg")
    fresh = shard_times(workspace.path / "data/.raw.work.tmp")
    assert all(fresh[name] > finished[name] for name in finished)
