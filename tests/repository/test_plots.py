"""The results as DVC shows them: plots, on a page that needs no network, and metrics as columns of experiments."""

import csv
import json

import pytest

from shardset.shards import open_shards
from tests.helpers.chromium import PROGRAM, open_chromium
from tests.helpers.plots_page import PAGE_PATH, SCRIPT, VERSIONS, hash_script
from tests.helpers.shard_sets import make_images, report_on, write_raw_set
from tests.helpers.workspace import Workspace, assert_succeeds, make_workspace

TITLES = ["Pixels before normalizing", "Normalized values by channel", "Brightness of images", "Contrast of images"]
MAX_METRICS = 30

NUM_CANVASES = """new Promise(resolve => {
  const look = attempts => {
    const count = document.querySelectorAll("canvas").length;
    attempts && count < %d ? setTimeout(look, 50, attempts - 1) : resolve(count);
  };
  look(200);
})"""


def make_results(path, raw) -> Workspace:
    """A repository with results of a raw shard set, committed."""
    workspace = make_workspace(path)
    report_on(raw, workspace.path / "data")
    assert_succeeds(workspace.run("git", "add", "--all"))
    assert_succeeds(workspace.run("git", "commit", "--quiet", "--message", "Results"))
    return workspace


@pytest.fixture(scope="module")
def results(tiny_raw, tmp_path_factory) -> Workspace:
    """A repository with results of the tiny dataset, committed."""
    return make_results(tmp_path_factory.mktemp("results") / "repository", open_shards(tiny_raw))


@pytest.fixture(scope="module")
def grey_results(tmp_path_factory) -> Workspace:
    """A repository with results of a set that has one channel and no test split."""
    path = tmp_path_factory.mktemp("grey")
    images = make_images(20, shape=(1, 32, 32))
    return make_results(path / "repository", write_raw_set(path / "raw", images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results", "grey_results"])
@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]], ids=" ".join)
def test_each_plot_is_drawn_once_and_starts_at_zero(command, name, request):
    workspace = request.getfixturevalue(name)
    drawn = json.loads(assert_succeeds(workspace.run("dvc", "plots", *command, "--json")))
    assert "errors" not in drawn
    specs = [plot["content"] for plots in drawn["data"].values() for plot in plots]
    assert [spec["title"]["text"] for spec in specs] == TITLES
    for spec in specs:
        assert spec["encoding"]["y"]["scale"]["zero"] is True
        assert {spec["encoding"][axis]["field"] for axis in "xy"} <= {*spec["data"]["values"][0]}


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
def test_plots_are_drawn_without_warning_or_request(results, tmp_path):
    done = results.run("dvc", "plots", "show")
    path = results.path / "dvc_plots/index.html"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path.as_uri()}\n", "")
    with open_chromium(tmp_path / "profile") as page:
        page.open(path, 1200, "light")
        assert page.evaluate(NUM_CANVASES % len(TITLES)) == len(TITLES)
        assert page.found("Runtime.consoleAPICalled") == page.found("Runtime.exceptionThrown") == []
        assert page.found("Log.entryAdded") == page.found("Network.loadingFailed") == []
        urls = [request["request"]["url"] for request in page.found("Network.requestWillBeSent")]
        assert urls == [path.as_uri()]


def test_scripts_of_the_page_are_those_of_npm():
    scripts = dict(SCRIPT.findall(PAGE_PATH.read_text(encoding="utf-8")))
    assert {name: hash_script(script) for name, script in scripts.items()} == {
        name: sha256 for name, (_, sha256) in VERSIONS.items()
    }


@pytest.mark.slow
def test_experiments_have_few_columns_of_metrics(results):
    lines = assert_succeeds(results.run("dvc", "exp", "show", "--csv")).splitlines()
    header, shown, *_ = csv.reader(lines)
    metrics = header[header.index("parent") + 1 : header.index("dataset")]
    assert {"train.mean", "train.twins", "test.leaked", "shards_mb"} <= {*metrics}
    assert len(metrics) <= MAX_METRICS
    assert "" not in shown[header.index(metrics[0]) : header.index("dataset")]
