"""The pipeline as a user runs it: real `dvc repro` runs in a git repository of their own."""

import json
import os
import re
import shutil
import sys

import pytest

from tests.helpers.file_server import FileServer, serve
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds, make_workspace, register_dataset

pytestmark = pytest.mark.slow

ALL = {"download", "stats", "audit", "normalize", "report"}
# DVC keeps no results of stages with outs in git that are neither metrics nor plots, so these run again.
UNCACHED = {"stats", "report"}


@pytest.fixture(scope="module")
def server(tiny):
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture(scope="module")
def tiny_workspace(tiny, server, tmp_path_factory) -> Workspace:
    """A clone in which the tiny dataset is registered, and the pipeline has run on it."""
    workspace = make_workspace(tmp_path_factory.mktemp("clone"))
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts(server.url))
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    assert workspace.repro() == ALL
    assert_succeeds(workspace.run("git", "add", "--all"))
    assert_succeeds(workspace.run("git", "commit", "--quiet", "--message", "The tiny dataset"))
    return workspace


def assert_clean(workspace):
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_archive_over_http_becomes_shards_stats_and_report(tiny_workspace, tiny, server):
    assert len(server.requests) == 1
    assert_succeeds(tiny_workspace.pipeline("verify", "data/shards"))
    manifest = json.loads((tiny_workspace.path / "data/shards/manifest.json").read_bytes())
    assert (manifest["dataset"], manifest["content_sha256"]) == ("tiny", tiny.content_sha256)
    tracked = tiny_workspace.run("git", "ls-files", "data").stdout.split()
    assert tracked == [
        "data/.gitignore",
        "data/audit.json",
        "data/not_duplicates.csv",
        "data/report/.gitignore",
        "data/report/histograms.csv",
        "data/report/metrics.json",
        "data/report/pixels.csv",
        "data/report/report.md",
        "data/stats.json",
    ]


def test_second_run_runs_no_stage(tiny_workspace):
    assert tiny_workspace.repro() == set()
    assert_clean(tiny_workspace)


@pytest.mark.parametrize(
    ("line", "new_line", "stages"),
    [
        ("dataset: tiny", "dataset: synthetic", ALL),
        ("max_leaked:", "max_leaked: 1000", {"audit"}),
        ("scheme: dataset", "scheme: imagenet", {"normalize", "report"}),
        ("dtype: float32", "dtype: uint8", {"normalize", "report"}),
        ("samples_per_shard: 10000", "samples_per_shard: 30", {"normalize", "report"}),
        ("decimals: 4", "decimals: 6", {"report"}),
    ],
)
def test_changed_param_runs_only_the_stages_that_read_it(line, new_line, stages, tiny_workspace, server):
    num_requests = len(server.requests)
    tiny_workspace.set_param(line, new_line)
    assert tiny_workspace.repro() == stages
    tiny_workspace.set_param(new_line, line)
    assert tiny_workspace.repro() == stages & UNCACHED
    assert_clean(tiny_workspace)
    assert len(server.requests) == num_requests


def test_changed_custom_mean_or_std_runs_only_its_readers(tiny_workspace):
    changes = (
        [
            ("scheme: dataset", "scheme: custom"),
            ("mean:", "mean: [0.5, 0.5, 0.5]"),
            ("std:", "std: [0.2, 0.2, 0.2]"),
        ],
        [("mean: [0.5, 0.5, 0.5]", "mean: [0.5, 0.4, 0.5]")],
        [("std: [0.2, 0.2, 0.2]", "std: [0.2, 0.2, 0.3]")],
    )
    for change in changes:
        for line, new_line in change:
            tiny_workspace.set_param(line, new_line)
        assert tiny_workspace.repro() == {"normalize", "report"}
    for change in reversed(changes):
        for line, new_line in change:
            tiny_workspace.set_param(new_line, line)
        assert tiny_workspace.repro() == {"report"}
    assert_clean(tiny_workspace)


@pytest.mark.parametrize(
    ("name", "change", "stages"),
    [
        ("pipeline/report/templates/std_note.j2", "A sentence more.\n", {"report"}),
        ("pipeline/card/readme.py", "CARD += 'A sentence more.\\n'\n", {"normalize", "report"}),
        ("pipeline/audit/limits.py", "# A comment.\n", {"audit"}),
        # What was judged is not among the pairs found, so `report` has nothing new to read.
        ("data/not_duplicates.csv", "train,1,train,0,0.1,0,cat,cat,0,0123456789abcdef\n", {"audit"}),
        # The card stays the same, so `report` has nothing new to read.
        ("pipeline/card/readme.py", "# A comment.\n", {"normalize"}),
    ],
    ids=["template", "card text", "code of the audit", "judged pairs", "comment"],
)
def test_changed_code_runs_only_the_stages_that_use_it(name, change, stages, tiny_workspace):
    path = tiny_workspace.path / name
    before = path.read_text()
    path.write_text(before + change)
    assert tiny_workspace.repro() == stages
    path.write_text(before)
    assert tiny_workspace.repro() == stages & UNCACHED
    assert_clean(tiny_workspace)


@pytest.mark.parametrize(
    ("removed", "stages"),
    [
        ([], ALL - {"stats"}),  # its only out is in git and matches the lock
        (["dvc.lock", "data/.gitignore", "data/audit.json", "data/report", "data/stats.json"], ALL),
    ],
    ids=["as cloned", "without results"],
)
def test_run_in_another_clone_changes_no_file_in_git(removed, stages, tiny_workspace, tmp_path):
    clone = Workspace(tmp_path / "another clone")
    assert_succeeds(tiny_workspace.run("git", "clone", "--quiet", tiny_workspace.path, clone.path))
    for name in removed:
        assert_succeeds(clone.run("git", "rm", "-r", "--quiet", name))
    assert clone.repro() == stages
    assert_succeeds(clone.run("git", "add", "--all"))
    assert clone.run("git", "diff", "--cached").stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another find")
@pytest.mark.parametrize("name", ["data/shards/train/images-00000-of-00001.npy", "data/shards/manifest.json"])
def test_damage_in_the_cache_is_repaired_as_the_error_says(name, tiny_workspace):
    path = tiny_workspace.path / name
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"?")
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # like a failing disk, which DVC doesn't notice
    assert tiny_workspace.repro() == set()
    done = tiny_workspace.pipeline("verify", "data/shards")
    assert done.returncode == 1
    (command,) = re.findall("`(find .*?)`", done.stderr)
    assert_succeeds(tiny_workspace.run(*command.replace("FILE", name).split()))
    assert tiny_workspace.repro() == {"normalize"}
    assert_succeeds(tiny_workspace.pipeline("verify", "data/shards"))
    shutil.rmtree(tiny_workspace.path / "data/shards")
    assert_succeeds(tiny_workspace.run("dvc", "checkout"))
    assert_succeeds(tiny_workspace.pipeline("verify", "data/shards"))
    assert_clean(tiny_workspace)


@pytest.mark.skipif(os.name == "nt", reason="needs rm")
@pytest.mark.parametrize(
    ("name", "message", "command"),
    [
        ("dvc.lock", "dvc.lock' is invalid", "git checkout dvc.lock"),
        (".dvc/tmp/rwlock", "Unable to read RWLock-file '.dvc/tmp/rwlock'", "rm .dvc/tmp/rwlock"),
    ],
)
def test_file_that_dvc_left_incomplete_is_replaced_as_the_docs_say(name, message, command, tiny_workspace):
    path = tiny_workspace.path / name
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b":")])  # without any colon, all but the last byte
    done = tiny_workspace.run("dvc", "repro")
    assert done.returncode != 0
    assert message in done.stderr
    assert f"run `{command}`" in (REPOSITORY / "docs/reliability.md").read_text()
    assert_succeeds(tiny_workspace.run(*command.split()))
    assert tiny_workspace.repro() == set()
    assert_clean(tiny_workspace)


def test_results_come_back_after_a_run_with_broken_params(tiny_workspace):
    tiny_workspace.set_param("samples_per_shard: 10000", "samples_per_shard: 0")
    done = tiny_workspace.run("dvc", "repro")
    tiny_workspace.set_param("samples_per_shard: 0", "samples_per_shard: 10000")
    assert done.returncode != 0
    assert "params.yaml: normalize.samples_per_shard: should be a whole number >= 1, got 0" in done.stderr
    assert tiny_workspace.repro() == set()
    assert_succeeds(tiny_workspace.pipeline("verify", "data/shards"))


@pytest.mark.skipif(os.name == "nt", reason="needs a shell script as python")
def test_results_come_back_after_a_run_with_another_python(tiny_workspace, tmp_path):
    python_path = tmp_path / "python"
    python_path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python_path.chmod(0o755)
    code_path = tiny_workspace.path / "pipeline/stages/stats.py"
    before = code_path.read_text()
    code_path.write_text(before + "# A comment.\n")
    done = tiny_workspace.run("dvc", "repro", PATH=os.pathsep.join([str(tmp_path), tiny_workspace.environment["PATH"]]))
    assert done.returncode != 0
    assert "Run `source .venv/bin/activate` first, or `make repro`. `dvc repro` then restores what" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tiny_workspace.path / "data/stats.json").exists()  # DVC removes outs before it runs a stage
    assert tiny_workspace.repro() == {"stats"}
    code_path.write_text(before)
    assert tiny_workspace.repro() == {"stats"}
    assert_clean(tiny_workspace)


def test_copy_without_git_runs_as_make_says(tiny_workspace, tmp_path):
    copy = Workspace(
        shutil.copytree(tiny_workspace.path, tmp_path / "copy", ignore=shutil.ignore_patterns(".git", "tmp"))
    )
    environment = {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    done = copy.run("dvc", "repro", **environment)
    assert done.returncode != 0
    assert "is not a git repository" in done.stderr
    (command,) = re.findall(r"without git: \.venv/bin/(dvc .*?)\"", (REPOSITORY / "Makefile").read_text())
    assert_succeeds(copy.run(*command.split(), **environment))
    assert copy.repro(**environment) == set()
    copy.set_param("decimals: 4", "decimals: 7")  # the run cache has no other test's result of this
    assert copy.repro(**environment) == {"report"}
