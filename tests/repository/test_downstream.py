"""What other repositories do with the shards, by the commands of docs/reuse.md, between real repositories on disk."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers.pages import find_blocks, read_sections, run_block
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds, make_repository, make_workspace

pytestmark = pytest.mark.slow

SECTIONS = read_sections("reuse.md")
# The commands of the table by what they are for.
COMMANDS = {
    goal.strip(): re.findall(r"`([^`]+)`", commands)
    for goal, commands in re.findall(r"^\| (.+?) \| (`.+) \|$", SECTIONS["Get the shards"], re.MULTILINE)
}
READ = "from shardset import ShardDataset; d = ShardDataset({!r}); print(len(d), d[0][0].dtype, d.manifest.dtype)"


def read_shards(workspace, path="data/shards"):
    return assert_succeeds(workspace.run("python", "-c", READ.format(path), PYTHONPATH=str(REPOSITORY))).strip()


def run_python(workspace, repo, code):
    """Run a block of a page and return the variable `files`, or a line without imports and return its value."""
    program = f"{code}print(sorted(files))\n" if "\n" in code else f"import dvc.api\nprint({code})\n"
    return assert_succeeds(workspace.run("python", "-c", f"REPO = {str(repo)!r}\n{program}")).strip()


def test_each_command_of_the_page_is_run():
    source = Path(__file__).read_text()
    assert [goal for goal in COMMANDS if f'COMMANDS["{goal}"]' not in source] == []
    with_blocks = [heading for heading, text in SECTIONS.items() if find_blocks(text)]
    assert [heading for heading in with_blocks if f'SECTIONS["{heading}"]' not in source] == []


@pytest.mark.parametrize("is_url", [True, False], ids=["url", "path"])
def test_dvc_import_pins_a_version_until_dvc_update(is_url, upstream, downstream):
    repo = {"REPO": upstream.path.as_uri() if is_url else upstream.path}
    (command,) = COMMANDS["shards pinned to a version in your own git history"]
    run_block(downstream, command, repo)
    assert read_shards(downstream) == "100 torch.float32 float32"
    (dep,) = yaml.safe_load((downstream.path / "data/shards.dvc").read_text())["deps"]
    released = assert_succeeds(upstream.run("git", "rev-parse", "v0.1.0^{commit}")).strip()
    assert (dep["repo"]["rev"], dep["repo"]["rev_lock"]) == ("v0.1.0", released)
    (command,) = COMMANDS["move to another version"]
    run_block(downstream, command)
    assert read_shards(downstream) == "100 torch.float32 uint8"
    shutil.rmtree(downstream.path / "data/shards")
    shutil.rmtree(downstream.path / ".dvc/cache")
    assert_succeeds(downstream.run("dvc", "pull"))
    assert read_shards(downstream) == "100 torch.float32 uint8"


def test_dvc_get_fetches_a_split_or_a_file(upstream, downstream):
    (command,) = COMMANDS["one split's `.npy` files (no manifest), untracked"]
    run_block(downstream, command, {"REPO": upstream.path})
    assert sorted(path.name for path in (downstream.path / "test").iterdir()) == [
        "images-00000-of-00001.npy",
        "labels-00000-of-00001.npy",
    ]
    in_clone, elsewhere = COMMANDS["only the statistics"]
    run_block(downstream, elsewhere, {"REPO": upstream.path})
    stats = (downstream.path / "stats.json").read_text()
    assert json.loads(stats)["images"] == 100
    assert stats == run_block(upstream, in_clone) == (upstream.path / "data/stats.json").read_text()
    get = ("dvc", "get", upstream.path, "data/audit/test_without_leaks.csv", "--rev", "v0.2.0")
    assert_succeeds(downstream.run(*get))
    assert (downstream.path / "test_without_leaks.csv").read_text().splitlines()[:2] == ["split,index", "test,0"]


def test_dvc_api_reads_a_version_without_a_checkout(upstream, downstream):
    (command,) = COMMANDS["one file in Python, without a clone"]
    assert json.loads(run_python(downstream, upstream.path, command))["dtype"] == "float32"
    (command,) = COMMANDS["a folder in Python"]
    run_python(downstream, upstream.path, command)
    assert read_shards(downstream, "shards") == "100 torch.float32 float32"
    program = (
        "import io, sys, dvc.api, numpy as np\n"
        "fs = dvc.api.DVCFileSystem(sys.argv[1], rev='v0.1.0')\n"
        "images = np.load(io.BytesIO(fs.read_bytes('data/shards/test/images-00000-of-00001.npy')))\n"
        "print(images.dtype, images.shape)\n"
    )
    printed = assert_succeeds(downstream.run("python", "-c", program, upstream.path))
    assert printed == "float32 (20, 3, 32, 32)\n"


def test_artifact_and_dataset_are_used_as_documented(upstream, downstream):
    text = SECTIONS["By name and version"]
    (get,) = find_blocks(text)
    run_block(downstream, get, {"REPO": upstream.path})
    assert read_shards(downstream, "shards") == "100 torch.float32 float32"
    files = run_python(downstream, upstream.path, *find_blocks(text, "python"))
    text = SECTIONS["As a dataset of your pipeline"]
    (add,) = find_blocks(text)
    run_block(downstream, add, {"REPO": upstream.path})
    assert files == run_python(downstream, upstream.path, *find_blocks(text, "python"))
    assert "data/shards/manifest.json" in files


def test_reader_is_installed_from_git_as_documented(tmp_path):
    pytest.importorskip("hatchling")  # which pip would download
    repository = make_workspace(tmp_path / "cifar-pipeline")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, repository.path)
    assert_succeeds(repository.run("git", "add", "--all"))
    assert_succeeds(repository.run("git", "commit", "--quiet", "--message", "Release"))
    assert_succeeds(repository.run("git", "tag", "v0.1.0"))
    (block,) = find_blocks(SECTIONS["Install only the reader"])
    installed = {"pip install numpy msgspec": ":"}  # with the tests
    folder = tmp_path / "site-packages"
    env = {"PIP_TARGET": str(folder), "PIP_NO_BUILD_ISOLATION": "0"}
    run_block(Workspace(tmp_path), block, installed | {"REPO": repository.path.as_uri()}, **env)
    assert (folder / "shardset/py.typed").is_file()


def test_import_needs_a_push_but_get_from_a_clone_does_not(upstream, tmp_path):
    # Another user's, so the remote is another one, to which nothing was pushed.
    clone = Workspace(tmp_path / "cifar-pipeline")
    downstream = make_repository(tmp_path / "training")
    assert_succeeds(upstream.run("git", "clone", "--quiet", "--branch", "v0.2.0", upstream.path, clone.path))
    shutil.copytree(upstream.path / ".dvc/cache", clone.path / ".dvc/cache")
    shards = downstream.path / "shards"
    failed = downstream.run("dvc", "import", clone.path, "data/shards", "--out", "shards")
    assert failed.returncode != 0
    assert not (shards / "manifest.json").exists()
    assert_succeeds(downstream.run("dvc", "get", clone.path, "data/shards", "--out", "got"))
    assert read_shards(downstream, "got") == "100 torch.float32 uint8"
    assert_succeeds(clone.run("dvc", "push"))
    assert_succeeds(downstream.run("dvc", "import", clone.path, "data/shards", "--out", "shards"))
    assert read_shards(downstream, "shards") == "100 torch.float32 uint8"
    manifests = {name: (downstream.path / name / "manifest.json").stat() for name in ("got", "shards")}
    assert not manifests["got"].st_mode & 0o222, "linked to the clone's cache, so read-only"
    assert manifests["shards"].st_mode & 0o200
    assert manifests["shards"].st_nlink == 1


def test_plain_copy_is_a_complete_shard_set(upstream, downstream):
    (command,) = COMMANDS["a plain copy"]
    run_block(upstream, command, {"ELSEWHERE": f"'{downstream.path}/copied'"})
    assert read_shards(downstream, "copied") == "100 torch.float32 uint8"
    assert_succeeds(downstream.run("python", "-m", "pipeline", "verify", "copied", PYTHONPATH=str(REPOSITORY)))


def test_pipeline_module_of_a_consumer_does_not_interfere(upstream, downstream):
    shutil.copytree(upstream.path / "data/shards", downstream.path / "data/shards")
    (downstream.path / "pipeline.py").write_text("raise ImportError('not the module that shardset needs')\n")
    assert read_shards(downstream) == "100 torch.float32 uint8"


def test_clone_that_pulls_proves_the_remote_complete(upstream, tmp_path):
    assert "in sync" in assert_succeeds(upstream.run("dvc", "status", "--cloud"))
    clone = Workspace(tmp_path / "clone", home=upstream.path.parent / "home")
    assert_succeeds(upstream.run("git", "clone", "--quiet", "--branch", "v0.1.0", upstream.path, clone.path))
    assert_succeeds(clone.run("dvc", "pull"))
    assert_succeeds(clone.pipeline("verify", "data/shards"))
    assert clone.repro() == set()
    # Delete one object: status and push trust the remote's entry for the folder that holds it, a fresh clone does not.
    (cached,) = clone.path.glob(".dvc/cache/files/md5/*/" + md5_of(clone.path / "data/shards/manifest.json")[2:])
    stored = upstream.default_remote / cached.relative_to(clone.path / ".dvc/cache")
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
