"""Remotes and caches as docs/remotes.md describes them: its commands, run in real repositories."""

import json
import os
import shutil
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from tests.helpers.file_server import serve_folder
from tests.helpers.pages import find_blocks, read_sections, run_block
from tests.helpers.workspace import Workspace, assert_succeeds, hash_files, make_repository

pytestmark = pytest.mark.slow

SECTIONS = {heading: find_blocks(text) for heading, text in read_sections("remotes.md").items()}


def make_clone(upstream, path, home=None):
    """A clone of the same user, or of another one."""
    clone = Workspace(path, home or upstream.path.parent / "home")
    assert_succeeds(upstream.run("git", "clone", "--quiet", upstream.path, path))
    assert_succeeds(clone.run("git", "config", "user.name", "Test"))
    assert_succeeds(clone.run("git", "config", "user.email", "test@example.com"))
    return clone


@pytest.fixture
def clone(upstream, tmp_path) -> Workspace:
    """A clone that has pulled the shards and whose user has a remote of their own, to which nothing was pushed."""
    clone = make_clone(upstream, tmp_path / "cifar-pipeline")
    assert_succeeds(clone.run("dvc", "pull"))
    return Workspace(clone.path, tmp_path / "home")


def fetch_tags(clone, upstream):
    """Fetch the data of all versions into the clone's cache."""
    assert_succeeds(clone.run("dvc", "fetch", "--all-tags", HOME=upstream.environment["HOME"]))


def stored_shards(folder: Path):
    """The dtypes of all shard sets whose manifest is in a cache or remote."""
    files = [path for path in folder.glob("files/md5/*/*") if path.read_bytes()[:1] == b"{"]
    return sorted(json.loads(path.read_bytes())["dtype"] for path in files if b'"manifest_sha256"' in path.read_bytes())


def dtype_of(folder: Path):
    return json.loads((folder / "manifest.json").read_bytes())["dtype"]


def num_links(workspace, path="data/shards/manifest.json"):
    return (workspace.path / path).stat().st_nlink


def repro_as(workspace, dtype):
    workspace.set_param("dtype: uint8", f"dtype: {dtype}")
    workspace.repro("normalize")


def test_each_section_with_commands_is_tested():
    source = Path(__file__).read_text()
    untested = [heading for heading, blocks in SECTIONS.items() if blocks and f'SECTIONS["{heading}"]' not in source]
    assert not untested


@pytest.mark.parametrize("kind", ["subfolder", "submodule"])
def test_repro_and_push_leave_the_outer_repository_clean(kind, upstream, tmp_path):
    outer = make_repository(tmp_path / "outer")
    inner = Workspace(outer.path / "preprocessing", home=tmp_path / "home")
    if kind == "submodule":
        add = ("git", "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", upstream.path, inner.path.name)
        assert_succeeds(outer.run(*add))
    else:
        assert_succeeds(upstream.run("git", "clone", "--quiet", upstream.path, inner.path))
        shutil.rmtree(inner.path / ".git")
    assert_succeeds(outer.run("git", "add", "--all"))
    assert_succeeds(outer.run("git", "commit", "--quiet", "--message", "Add the preprocessing"))
    assert "normalize" in inner.repro(PIPELINE_SOURCE=str(upstream.path.parent / "source"))
    assert_succeeds(inner.run("dvc", "push"))
    assert assert_succeeds(outer.run("git", "status", "--porcelain", "--ignore-submodules=none")) == ""
    assert stored_shards(inner.default_remote) == ["uint8", "uint8"]  # data/raw and data/shards


def test_default_remote_is_in_the_home_directory(clone):
    push, modify = SECTIONS["The default remote"]
    run_block(clone, push)
    assert stored_shards(clone.default_remote) == ["uint8", "uint8"]
    large_disk = clone.path.parent / "large disk"
    run_block(clone, modify, {"/large-disk/cifar-pipeline": f"'{large_disk}'"})
    run_block(clone, push)
    assert hash_files(large_disk) == hash_files(clone.default_remote)
    assert assert_succeeds(clone.run("git", "status", "--porcelain")) == ""


def test_default_remote_keeps_its_address_when_dvc_writes_the_config(clone):
    assert_succeeds(clone.run("dvc", "remote", "modify", "storage", "jobs", "4"))
    assert "url = ~/.local/share/cifar-pipeline/remote\n" in (clone.path / ".dvc/config").read_text()


def test_data_on_a_web_server_are_pulled_by_the_first_command(clone, tmp_path):
    publish, pull = SECTIONS["Publish the data on a web server"]
    www = tmp_path / "www"
    published = tmp_path / "published.git"
    assert_succeeds(clone.run("git", "init", "--quiet", "--bare", published))
    assert_succeeds(clone.run("git", "remote", "set-url", "origin", published))
    assert_succeeds(clone.run("git", "config", "push.default", "current"))
    stranger = Workspace(tmp_path / "elsewhere", home=tmp_path / "another home")
    stranger.path.mkdir()
    with serve_folder(tmp_path) as url:
        # The server is this machine.
        addresses = {
            "ssh://server/var/www/cifar-pipeline": www,
            "https://data.example.org/cifar-pipeline": f"{url}/www",
        }
        run_block(clone, publish, addresses)
        run_block(stranger, pull, {"REPO": published})
        cloned = Workspace(stranger.path / "cifar-pipeline", home=stranger.home)
        assert_succeeds(cloned.pipeline("verify", "data/shards"))
        assert cloned.repro() == set()
        consumer = make_repository(tmp_path / "consumer", home=stranger.home)
        assert_succeeds(consumer.run("dvc", "import", published.as_uri(), "data/shards", "--out", "shards"))
        assert dtype_of(consumer.path / "shards") == "uint8"
        repro_as(clone, "float16")
        failed = clone.run("dvc", "push")
        assert failed.returncode != 0, "a web server only serves files"
        assert_succeeds(clone.run("dvc", "push", "--remote", "www"))
    assert not stranger.default_remote.exists()


def test_commands_with_s3(clone, tmp_path):
    (commands,) = SECTIONS["Use another remote"]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="bucket")
        installed = {"pip install --constraint constraints.txt --editable '.[s3]'": "true"}  # with the tests
        run_block(clone, commands, installed, AWS_ENDPOINT_URL=endpoint, **keys)
        assert client.list_objects_v2(Bucket="bucket")["KeyCount"] > 0
        pulling = make_clone(clone, tmp_path / "pulling")
        assert_succeeds(pulling.run("dvc", "remote", "modify", "--local", "storage", "endpointurl", endpoint))
        assert_succeeds(pulling.run("dvc", "pull", **keys))
        assert_succeeds(pulling.pipeline("verify", "data/shards"))
        assert "in sync" in assert_succeeds(pulling.run("dvc", "status", "--cloud", **keys))
    finally:
        server.stop()


def test_import_needs_a_push_and_keeps_the_address_as_typed(upstream, clone, tmp_path):
    fetch_tags(clone, upstream)
    by_path, by_url = SECTIONS["Imports"]
    push, import_by_path = by_path.splitlines()
    training = make_repository(tmp_path / "training")
    assert training.run("bash", "-euc", import_by_path).returncode != 0
    run_block(training, push)
    run_block(training, import_by_path)
    assert dtype_of(training.path / "data/shards") == "float32"
    run_block(training, by_url, {"REPO": clone.path.as_uri()})
    in_data = training.run("bash", "-c", "cd data && dvc update stats.json.dvc && ! dvc update shards.dvc")
    assert "No git repository was found at ../cifar-pipeline" in in_data.stderr
    assert_succeeds(in_data)
    assert_succeeds(training.run("dvc", "update", "data/shards.dvc", "--rev", "v0.2.0"))
    assert dtype_of(training.path / "data/shards") == "uint8"
    assert_succeeds(training.run("git", "add", "--all"))
    assert_succeeds(training.run("git", "commit", "--quiet", "--message", "Import the shards"))
    other_depth = make_clone(training, tmp_path / "deeper/training")
    failed = other_depth.run("dvc", "pull")
    assert "No remote provided and no default remote set" in failed.stderr
    assert "Checkout failed for following targets:\ndata/shards\n" in failed.stderr
    assert (other_depth.path / "data/stats.json").exists()  # imported by URL


def test_links_become_copies(clone, tmp_path):
    (commands,) = SECTIONS["Links and copies"]

    def get(out, *options):
        assert_succeeds(clone.run("dvc", "get", clone.path, "data/shards", *options, "--out", tmp_path / out))
        return (tmp_path / out / "manifest.json").stat()

    linked = num_links(clone)
    assert linked >= 2
    got = get("linked", "--rev", "v0.2.0")
    assert (got.st_nlink, got.st_mode & 0o222) == (linked + 1, 0)
    assert get("copied").st_nlink == 1
    shutil.rmtree(tmp_path / "linked")
    assert_succeeds(clone.run("dvc", "unprotect", "data/shards"))
    assert num_links(clone) == 1
    assert_succeeds(clone.run("dvc", "checkout", "--relink"))
    assert num_links(clone) == linked
    run_block(clone, commands)
    assert num_links(clone) == 1
    got = get("got", "--rev", "v0.2.0")
    assert (got.st_nlink, got.st_mode & 0o200) == (1, 0o200)


def test_gc_keeps_tags_and_experiments_as_documented(upstream, clone):
    fetch_tags(clone, upstream)
    (commands,) = SECTIONS["Delete unused data"]
    cache_dir = clone.path / ".dvc/cache"
    clone.set_param("samples_per_shard: 10000", "samples_per_shard: 7")
    clone.repro("normalize")
    assert_succeeds(clone.run("git", "checkout", "--quiet", "."))
    assert_succeeds(clone.run("dvc", "checkout"))
    assert_succeeds(clone.run("dvc", "exp", "run", "--temp", "--set-param", "normalize.dtype=float16", "normalize"))
    every = ["float16", "float32", "uint8", "uint8"]  # an experiment, v0.1.0, v0.2.0 and data/raw
    assert stored_shards(cache_dir) == sorted([*every, "uint8"])
    run_block(clone, commands, {"dvc gc": "dvc gc --force"})  # it would ask
    assert stored_shards(cache_dir) == every
    assert_succeeds(clone.run("dvc", "gc", "--force", "--workspace"))
    assert stored_shards(cache_dir) == ["uint8", "uint8"]
    assert dtype_of(clone.path / "data/shards") == "uint8"


def test_gc_of_a_remote_deletes_what_other_clones_pushed(clone):
    repro_as(clone, "float16")
    assert_succeeds(clone.run("dvc", "push"))
    assert stored_shards(clone.default_remote) == ["float16", "uint8"]
    other = make_clone(clone, clone.path.parent / "other", clone.home)
    keep = ("--workspace", "--all-commits", "--all-experiments", "--cloud")
    assert_succeeds(other.run("dvc", "gc", "--force", *keep, "--projects", clone.path))
    assert stored_shards(clone.default_remote) == ["float16", "uint8"]
    assert_succeeds(other.run("dvc", "gc", "--force", *keep))
    assert stored_shards(clone.default_remote) == ["uint8"]


def test_worktrees_share_a_cache(clone):
    share, repair = SECTIONS["Share a cache between worktrees"]
    assert_succeeds(clone.run("dvc", "push"))
    linked = num_links(clone)
    run_block(clone, share)
    worktree = Workspace(clone.path.parent / "cifar-pipeline-uint8", clone.home)
    assert num_links(worktree) == num_links(clone) == linked + 1
    assert assert_succeeds(worktree.run("git", "status", "--porcelain")) == ""
    damaged = worktree.path / "data/shards/manifest.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    assert worktree.pipeline("verify", "data/shards").returncode != 0
    run_block(worktree, repair)
    assert_succeeds(worktree.pipeline("verify", "data/shards"))
    repro_as(worktree, "float16")
    keep = ("--workspace", "--all-branches", "--all-tags", "--all-experiments")
    assert_succeeds(clone.run("dvc", "gc", "--force", *keep, "--projects", "../cifar-pipeline-uint8"))
    assert "float16" in stored_shards(clone.path / ".dvc/cache")
    assert_succeeds(clone.run("dvc", "gc", "--force", *keep))
    assert "float16" not in stored_shards(clone.path / ".dvc/cache")


@pytest.mark.skipif(os.name != "posix", reason="sets modes")
def test_cache_and_remote_of_a_group_can_be_written_by_the_group(clone, tmp_path):
    make, use = SECTIONS["Share a cache and a remote in a group"]
    srv = {"/srv": tmp_path / "srv"}
    run_block(clone, make, srv | {"vision": os.getgid()})
    run_block(clone, use, srv)
    assert_succeeds(clone.run("dvc", "commit", "--force"))
    assert_succeeds(clone.run("dvc", "push"))
    for name in ("cache", "remote"):
        assert stored_shards(tmp_path / "srv/dvc" / name) == ["uint8", "uint8"]
        folders = [path for path in (tmp_path / "srv/dvc" / name).rglob("*") if path.is_dir()]
        assert folders
        assert all(path.stat().st_mode & 0o2070 == 0o2070 for path in folders)
    assert assert_succeeds(clone.run("git", "status", "--porcelain")) == ""
