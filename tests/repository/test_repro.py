"""The pipeline as a user runs it: real `dvc repro` runs in a git repository of their own."""

import json
import os
import re
import shutil

import pytest

from tests.helpers.file_server import FileServer, serve
from tests.helpers.workspace import Workspace, make_workspace

ALL = {"download", "stats", "normalize", "report"}


@pytest.fixture(scope="module")
def server(tiny):
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture(scope="module")
def workspace(tiny, server, tmp_path_factory) -> Workspace:
    """A clone in which one more dataset is known, by its facts alone, and the pipeline has run on it."""
    workspace = make_workspace(tmp_path_factory.mktemp("clone"))
    tiny.install_reader(workspace.path)
    facts_path = workspace.path / "pipeline/datasets.py"
    facts_path.write_text(f"{facts_path.read_text()}\nDATASETS['tiny'] = {tiny.facts(server.url)!r}\n")
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    assert workspace.repro() == ALL
    assert workspace.run("git", "add", "--all").returncode == 0
    assert workspace.run("git", "commit", "--quiet", "--message", "The tiny dataset").returncode == 0
    return workspace


def test_an_archive_served_over_http_becomes_shards_stats_and_report(workspace, tiny, server):
    assert len(server.requests) == 1
    done = workspace.pipeline("verify", "data/shards")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((workspace.path / "data/shards/manifest.json").read_bytes())
    assert (manifest["dataset"], manifest["content_sha256"]) == ("tiny", tiny.content_sha256)
    tracked = workspace.run("git", "ls-files", "data").stdout.split()
    assert tracked == [
        "data/.gitignore",
        "data/report/.gitignore",
        "data/report/classes.csv",
        "data/report/images.csv",
        "data/report/metrics.json",
        "data/report/near_duplicates.csv",
        "data/report/pixels.csv",
        "data/report/report.md",
        "data/stats.json",
    ]


def test_a_second_run_does_nothing(workspace):
    assert workspace.repro() == set()
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_metrics_can_be_shown_and_compared(workspace):
    shown = json.loads(workspace.run("dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    assert files["data/stats.json"]["data"]["images"] == 100
    assert files["data/report/metrics.json"]["data"]["train"]["samples"] == 100


def test_plots_are_drawn_with_titles_and_axes_of_this_and_other_revisions(workspace):
    for command in (["show"], ["diff", "HEAD"]):
        drawn = json.loads(workspace.run("dvc", "plots", *command, "--json").stdout)
        titles = {plot[0]["content"]["title"]["text"] for plot in drawn["data"].values() if plot}
        assert {"Pixels before normalizing", "Green after normalizing", "Test samples by class"} <= titles
        assert len(titles) == 10  # the tiny dataset has no near duplicates to draw
        # The one file that has to be among the plots and is none.
        assert {error["source"] for error in drawn.get("errors", [])} <= {"data/report/report.md"}


@pytest.mark.parametrize(
    ("line", "new_line", "stages"),
    [
        ("dataset: tiny", "dataset: synthetic", ALL),
        ("scheme: dataset", "scheme: imagenet", {"normalize", "report"}),
        ("dtype: float32", "dtype: uint8", {"normalize", "report"}),
        ("samples_per_shard: 10000", "samples_per_shard: 30", {"normalize", "report"}),
        ("decimals: 4", "decimals: 6", {"report"}),
    ],
)
def test_a_changed_key_runs_just_the_stages_that_read_it_and_changed_back_none(
    line, new_line, stages, workspace, server
):
    num_requests = len(server.requests)
    workspace.set_param(line, new_line)
    assert workspace.repro() == stages
    workspace.set_param(new_line, line)
    assert workspace.repro() == set()
    assert workspace.run("git", "status", "--porcelain").stdout == ""
    assert len(server.requests) == num_requests


def test_a_changed_mean_or_std_of_scheme_custom_runs_just_the_stages_that_read_it(workspace):
    changes = (
        [
            ("scheme: dataset", "scheme: custom"),
            ("mean: null", "mean: [0.5, 0.5, 0.5]"),
            ("std: null", "std: [0.2, 0.2, 0.2]"),
        ],
        [("mean: [0.5, 0.5, 0.5]", "mean: [0.5, 0.4, 0.5]")],
        [("std: [0.2, 0.2, 0.2]", "std: [0.2, 0.2, 0.3]")],
    )
    for change in changes:
        for line, new_line in change:
            workspace.set_param(line, new_line)
        assert workspace.repro() == {"normalize", "report"}
    for change in reversed(changes):
        for line, new_line in change:
            workspace.set_param(new_line, line)
        assert workspace.repro() == set()
    assert workspace.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("removed", "stages"),
    [
        ([], ALL - {"stats"}),  # its one out is in git, and is what the lock says
        (["dvc.lock", "data"], ALL),
    ],
)
def test_a_run_in_another_clone_leaves_the_lock_and_the_metrics_as_they_are(removed, stages, workspace, tmp_path):
    clone = Workspace(tmp_path / "another clone")
    assert workspace.run("git", "clone", "--quiet", workspace.path, clone.path).returncode == 0
    for name in removed:
        assert clone.run("git", "rm", "-r", "--quiet", name).returncode == 0
    assert clone.repro() == stages
    assert clone.run("git", "add", "--all").returncode == 0
    assert clone.run("git", "diff", "--cached").stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another find")
@pytest.mark.parametrize("name", ["data/shards/train/images-00000-of-00001.npy", "data/shards/manifest.json"])
def test_what_was_damaged_in_the_cache_too_is_mended_as_the_error_says(name, workspace):
    path = workspace.path / name
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"?")
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk damages it, unseen by DVC
    assert workspace.repro() == set()
    done = workspace.pipeline("verify", "data/shards")
    assert done.returncode == 1
    (command,) = re.findall("`(find .*?)`", done.stderr)
    assert workspace.run(*command.replace("FILE", name).split()).returncode == 0
    assert workspace.repro() == {"normalize"}
    assert workspace.pipeline("verify", "data/shards").returncode == 0
    shutil.rmtree(workspace.path / "data/shards")
    assert workspace.run("dvc", "checkout").returncode == 0
    assert workspace.pipeline("verify", "data/shards").returncode == 0
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_after_a_run_stopped_by_broken_params_the_cache_gives_back_what_was_there(workspace):
    workspace.set_param("samples_per_shard: 10000", "samples_per_shard: 0")
    done = workspace.run("dvc", "repro")
    workspace.set_param("samples_per_shard: 0", "samples_per_shard: 10000")
    assert done.returncode != 0
    assert "params.yaml: normalize.samples_per_shard: should be a whole number >= 1, got 0" in done.stderr
    assert workspace.repro() == set()
    assert workspace.pipeline("verify", "data/shards").returncode == 0
