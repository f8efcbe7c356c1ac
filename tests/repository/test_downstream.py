"""What other repositories do with the shards: real commands between repositories on disk."""

import hashlib
import json
import shutil

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.helpers.workspace import (
    REPOSITORY,
    Workspace,
    assert_succeeds,
    commit,
    make_repository,
    make_workspace,
    register_dataset,
)

pytestmark = pytest.mark.slow

READ = "from shardset import ShardDataset; d = ShardDataset({!r}); print(len(d), d[0][0].dtype, d.manifest.dtype)"


@pytest.fixture(scope="module")
def upstream(tiny, tmp_path_factory) -> Workspace:
    """A repository that has released v1, float32, and v2, uint8, of the tiny dataset."""
    folder = tmp_path_factory.mktemp("upstream")
    workspace = make_workspace(folder / "cifar-pipeline")
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts())
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    source = str(tiny.write_files(folder / "source"))
    workspace.repro(PIPELINE_SOURCE=source)
    commit(workspace, "Release the tiny dataset as float32", "v1")
    workspace.set_param("dtype: float32", "dtype: uint8")
    workspace.repro(PIPELINE_SOURCE=source)
    commit(workspace, "Release the tiny dataset as uint8", "v2")
    return workspace


@pytest.fixture
def downstream(tmp_path) -> Workspace:
    """An empty repository of a consumer, with DVC."""
    return make_repository(tmp_path / "training")


def read_shards(workspace, path="data/shards"):
    return assert_succeeds(workspace.run("python", "-c", READ.format(path), PYTHONPATH=str(REPOSITORY))).strip()


def test_dvc_import_pins_a_version_until_dvc_update(upstream, downstream):
    (downstream.path / "data").mkdir()
    assert_succeeds(
        downstream.run("dvc", "import", upstream.path, "data/shards", "--rev", "v1", "--out", "data/shards")
    )
    assert read_shards(downstream) == "100 torch.float32 float32"
    (dep,) = yaml.safe_load((downstream.path / "data/shards.dvc").read_text())["deps"]
    v1 = assert_succeeds(upstream.run("git", "rev-parse", "v1^{commit}")).strip()
    assert (dep["repo"]["rev"], dep["repo"]["rev_lock"]) == ("v1", v1)
    assert_succeeds(downstream.run("dvc", "update", "data/shards.dvc", "--rev", "v2"))
    assert read_shards(downstream) == "100 torch.float32 uint8"
    shutil.rmtree(downstream.path / "data/shards")
    shutil.rmtree(downstream.path / ".dvc/cache")
    assert_succeeds(downstream.run("dvc", "pull"))
    assert read_shards(downstream) == "100 torch.float32 uint8"


def test_import_by_url_reads_from_the_remote(upstream, downstream, tmp_path):
    clone = Workspace(tmp_path / "published")
    assert_succeeds(upstream.run("git", "clone", "--quiet", upstream.path, clone.path))
    storage = upstream.path.parent / "cifar-pipeline-storage"
    assert_succeeds(clone.run("dvc", "remote", "modify", "storage", "url", storage.as_posix()))
    assert_succeeds(clone.run("git", "commit", "--quiet", "--all", "--message", "Name the remote by an absolute path"))
    (downstream.path / "data").mkdir()
    assert_succeeds(downstream.run("dvc", "import", clone.path.as_uri(), "data/shards", "--out", "data/shards"))
    assert read_shards(downstream) == "100 torch.float32 uint8"


def test_dvc_get_fetches_a_split_or_a_file(upstream, downstream):
    for path, rev in (
        ("data/shards/test", "v1"),
        ("data/shards/manifest.json", "v2"),
        ("data/stats.json", "v1"),
        ("data/audit/test_without_leaks.csv", "v2"),
    ):
        assert_succeeds(downstream.run("dvc", "get", upstream.path, path, "--rev", rev))
    assert sorted(path.name for path in (downstream.path / "test").iterdir()) == [
        "images-00000-of-00001.npy",
        "labels-00000-of-00001.npy",
    ]
    assert json.loads((downstream.path / "manifest.json").read_bytes())["dtype"] == "uint8"
    assert json.loads((downstream.path / "stats.json").read_bytes())["images"] == 100
    assert (downstream.path / "test_without_leaks.csv").read_text().splitlines()[:2] == ["split,index", "test,0"]


def test_dvc_api_reads_a_version_without_a_checkout(upstream, downstream):
    program = (
        "import io, json, sys, dvc.api, numpy as np\n"
        "repo = sys.argv[1]\n"
        "manifest = json.loads(dvc.api.read('data/shards/manifest.json', repo=repo, rev='v1'))\n"
        "fs = dvc.api.DVCFileSystem(repo, rev='v1')\n"
        "shard = manifest['splits']['test']['shards'][0]['images']['path']\n"
        "images = np.load(io.BytesIO(fs.read_bytes(f'data/shards/{shard}')))\n"
        "fs.get('data/shards', 'shards', recursive=True)\n"
        "print(manifest['dtype'], images.dtype, images.shape)\n"
    )
    assert (
        assert_succeeds(downstream.run("python", "-c", program, upstream.path)) == "float32 float32 (20, 3, 32, 32)\n"
    )
    assert read_shards(downstream, "shards") == "100 torch.float32 float32"


def test_import_needs_a_push_but_get_from_a_clone_does_not(tiny, upstream, downstream, tmp_path):
    clone = Workspace(tmp_path / "upstream/cifar-pipeline")  # with a remote of its own, to which nothing was pushed
    assert_succeeds(upstream.run("git", "clone", "--quiet", "--branch", "v2", upstream.path, clone.path))
    shutil.copytree(upstream.path / ".dvc/cache", clone.path / ".dvc/cache")
    shards = downstream.path / "shards"
    failed = downstream.run("dvc", "import", clone.path, "data/shards", "--out", "shards")
    assert failed.returncode != 0
    assert not (shards / "manifest.json").exists()
    assert_succeeds(downstream.run("dvc", "get", clone.path, "data/shards", "--out", "got"))
    assert read_shards(downstream, "got") == "100 torch.float32 uint8"
    (clone.path.parent / "cifar-pipeline-storage").mkdir(exist_ok=True)
    assert_succeeds(clone.run("dvc", "push"))
    assert_succeeds(downstream.run("dvc", "import", clone.path, "data/shards", "--out", "shards"))
    assert read_shards(downstream, "shards") == "100 torch.float32 uint8"
    manifests = {name: (downstream.path / name / "manifest.json").stat() for name in ("got", "shards")}
    assert not manifests["got"].st_mode & 0o222, "linked to the clone's cache, so read-only"
    assert manifests["shards"].st_mode & 0o200
    assert manifests["shards"].st_nlink == 1


def test_git_alone_has_the_statistics_of_each_version(upstream):
    shown = assert_succeeds(upstream.run("git", "show", "v1:data/stats.json"))
    assert shown == (upstream.path / "data/stats.json").read_text()


def test_plain_copy_is_a_complete_shard_set(upstream, downstream):
    shutil.copytree(upstream.path / "data/shards", downstream.path / "copied")
    assert read_shards(downstream, "copied") == "100 torch.float32 uint8"
    assert_succeeds(downstream.run("python", "-m", "pipeline", "verify", "copied", PYTHONPATH=str(REPOSITORY)))


def test_pipeline_module_of_a_consumer_does_not_interfere(upstream, downstream):
    shutil.copytree(upstream.path / "data/shards", downstream.path / "data/shards")
    (downstream.path / "pipeline.py").write_text("raise ImportError('not the module that shardset needs')\n")
    assert read_shards(downstream) == "100 torch.float32 uint8"


def test_clone_that_pulls_proves_the_remote_complete(upstream):
    assert "in sync" in assert_succeeds(upstream.run("dvc", "status", "--cloud"))
    clone = Workspace(upstream.path.parent / "clone")
    assert_succeeds(upstream.run("git", "clone", "--quiet", "--branch", "v1", upstream.path, clone.path))
    assert_succeeds(clone.run("dvc", "pull"))
    assert_succeeds(clone.pipeline("verify", "data/shards"))
    assert clone.repro() == set()
    # Delete one object: status and push trust the remote's entry for the folder that holds it, a fresh clone does not.
    (cached,) = clone.path.glob(".dvc/cache/files/md5/*/" + md5_of(clone.path / "data/shards/manifest.json")[2:])
    stored = upstream.path.parent / "cifar-pipeline-storage" / cached.relative_to(clone.path / ".dvc/cache")
    content = stored.read_bytes()
    stored.unlink()
    try:
        assert "in sync" in assert_succeeds(upstream.run("dvc", "status", "--cloud"))
        shutil.rmtree(clone.path / ".dvc/cache")
        done = clone.run("dvc", "fetch")
        assert done.returncode == 1
        assert f"failed to transfer '{cached.parent.name}{cached.name}'" in done.stderr
    finally:
        stored.write_bytes(content)
    assert_succeeds(clone.run("dvc", "fetch"))


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_push_and_pull_work_with_s3(upstream, tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="bucket")
        clones = []
        for name in ("pushing", "pulling"):
            clone = Workspace(tmp_path / name)
            assert_succeeds(upstream.run("git", "clone", "--quiet", upstream.path, clone.path))
            assert_succeeds(
                clone.run("dvc", "remote", "modify", "--local", "storage", "url", "s3://bucket/cifar-pipeline")
            )
            assert_succeeds(clone.run("dvc", "remote", "modify", "--local", "storage", "endpointurl", endpoint))
            clones.append(clone)
        pushing, pulling = clones
        shutil.copytree(upstream.path / ".dvc/cache", pushing.path / ".dvc/cache")
        assert_succeeds(pushing.run("dvc", "push", **keys))
        assert client.list_objects_v2(Bucket="bucket")["KeyCount"] > 0
        assert_succeeds(pulling.run("dvc", "pull", **keys))
        assert_succeeds(pulling.pipeline("verify", "data/shards"))
        assert "in sync" in assert_succeeds(pulling.run("dvc", "status", "--cloud", **keys))
    finally:
        server.stop()
