"""The steps of the workflow that compares a pull request with its base, in a clone like that of a runner."""

import os

import pytest

from tests.helpers.workflows import run_step, steps_of
from tests.helpers.workspace import Workspace, assert_succeeds, make_workspace, register_dataset

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the runner of this workflow has Linux")]


@pytest.fixture
def checkout(tiny, tmp_path):
    """What actions/checkout makes of a pull request that changes the scheme: the merge and its parents."""
    upstream = make_workspace(tmp_path / "upstream")
    register_dataset(upstream.path / "pipeline", "synthetic", tiny.facts())  # for speed
    assert_succeeds(upstream.run("git", "commit", "--quiet", "--all", "--message", "Shrink the generated dataset"))
    assert_succeeds(upstream.run("git", "switch", "--quiet", "--create", "feature"))
    upstream.set_param("scheme: dataset", "scheme: symmetric")
    for command in (
        ["commit", "--quiet", "--all", "--message", "Change the scheme"],
        ["switch", "--quiet", "-"],
        ["merge", "--quiet", "--no-ff", "feature", "--message", "Merge"],
    ):
        assert_succeeds(upstream.run("git", *command))
    checkout = Workspace(tmp_path / "checkout")
    depth = steps_of("compare")[0]["with"]["fetch-depth"]
    options = ["--depth", str(depth)] if depth else []
    assert_succeeds(upstream.run("git", "clone", "--quiet", *options, upstream.path.as_uri(), checkout.path))
    assert_succeeds(checkout.run("git", "switch", "--quiet", "--detach", "HEAD"))
    return checkout


def test_summary_shows_what_a_pull_request_changes(checkout, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_SOURCE", str(tiny.write_files(tmp_path / "source")))
    summary = tmp_path / "summary.md"
    run_step(checkout, "compare", "Run the pipeline for the base")
    assert checkout.run("git", "status", "--porcelain").stdout == ""
    run_step(checkout, "compare", "Run the pipeline for the pull request")
    run_step(checkout, "compare", "Draw the plots of both")
    run_step(checkout, "compare", "Compare", GITHUB_STEP_SUMMARY=str(summary), PAGES="https://host/artifact")
    assert (checkout.path / "data/report/report.html").exists()
    assert "merged" in (checkout.path / "dvc_plots/index.html").read_text()
    generated, _, in_git = summary.read_text().partition("## In git\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in generated.splitlines() if line.startswith("|")]
    assert ["params.yaml", "normalize.scheme", "dataset", "symmetric"] in [row[:4] for row in rows]
    changed = {row[1] for row in rows if row[0] == "data/report/metrics.json"}
    assert {"train.mean", "train.std", "test.std"} <= changed
    assert ["modified", "data/shards/"] in rows
    assert not any(row[1].startswith("data/raw") for row in rows if row[0] == "modified")
    assert "(https://host/artifact)" in generated
    assert "scheme `symmetric`" in generated
    assert "| normalize.scheme | dataset  | symmetric |" in in_git


def test_pipeline_that_fails_fails_the_job(checkout):
    with pytest.raises(AssertionError, match="download"):
        run_step(checkout, "compare", "Run the pipeline for the base", PIPELINE_SOURCE="missing")
    with pytest.raises(AssertionError, match="download"):
        run_step(checkout, "compare", "Run the pipeline for the pull request", PIPELINE_SOURCE="missing")
