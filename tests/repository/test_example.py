"""examples/train as a repository of its own: real commands from the import to the plots."""

import csv
import json
import shutil

import pytest
from PIL import Image

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from tests.helpers.image_files import make_image_folder
from tests.helpers.shard_sets import download, make_params
from tests.helpers.workspace import REPOSITORY, assert_succeeds, commit, make_repository, make_workspace

pytestmark = pytest.mark.slow


def test_example_trained_on_imported_shards_beats_chance(tmp_path):
    upstream = make_workspace(tmp_path / "cifar-pipeline")
    upstream.set_param("dataset: cifar10", "dataset: synthetic")
    upstream.set_param("dtype: float32", "dtype: uint8")
    upstream.repro("normalize", "audit")
    commit(upstream, "Release the synthetic dataset", "v1")
    training = make_repository(tmp_path / "training")
    shutil.copytree(REPOSITORY / "examples/train", training.path, dirs_exist_ok=True)
    (training.path / "data").mkdir()
    for path, out in (
        ("data/shards", "data/shards"),
        ("data/audit/test_without_leaks.csv", "data/without_leaks.csv"),
    ):
        assert_succeeds(training.run("dvc", "import", upstream.path, path, "--rev", "v1", "--out", out))
    training.set_param("epochs: 4", "epochs: 1")
    assert_succeeds(training.run("git", "add", "--all"))
    assert_succeeds(training.run("git", "commit", "--quiet", "--message", "Train on v1"))
    # One thread: with other tests running, two threads would mostly wait for each other.
    assert_succeeds(training.run("dvc", "repro", PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1"))
    shown = json.loads(assert_succeeds(training.run("dvc", "metrics", "show", "--json")))
    metrics = shown[""]["data"]["dvclive/metrics.json"]["data"]
    assert metrics["test"]["accuracy"] > 0.5  # of ten classes
    assert metrics["test"]["accuracy_without_leaks"] > 0.5
    assert_succeeds(training.run("dvc", "plots", "show"))
    page = (training.path / "dvc_plots/index.html").read_text()
    assert "Test samples by class" in page
    assert "accuracy" in page


def test_example_trains_on_grey_images_of_another_size(tmp_path):
    folder = make_image_folder(tmp_path / "pictures", ("train", "val"), each=64)
    for path in folder.rglob("*.jpg"):
        Image.open(path).convert("L").save(path)
    download("images", tmp_path / "raw", tmp_path, folder, size=72, resize=72)
    write_stats(tmp_path / "raw", tmp_path / "stats.json")
    training = make_repository(tmp_path / "training")
    shutil.copytree(REPOSITORY / "examples/train", training.path, dirs_exist_ok=True)
    normalize_shards(tmp_path / "raw", tmp_path / "stats.json", training.path / "data/shards", make_params())
    chosen = range(0, 128, 3)
    (training.path / "data/without_leaks.csv").write_text("split,index\n" + "".join(f"val,{i}\n" for i in chosen))
    training.set_param("epochs: 4", "epochs: 1")
    assert_succeeds(training.run("git", "add", "--all"))
    assert_succeeds(training.run("git", "commit", "--quiet", "--message", "Train on own images"))
    assert_succeeds(training.run("dvc", "repro", PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1"))
    metrics = json.loads((training.path / "dvclive/metrics.json").read_bytes())
    with (training.path / "confusion.csv").open(newline="") as file:
        right = [row["actual"] == row["predicted"] for row in csv.DictReader(file)]
    assert metrics["val"] == {  # there is no test split
        "accuracy": sum(right) / 128,
        "accuracy_without_leaks": sum(right[index] for index in chosen) / len(chosen),
    }
    assert 0 < sum(right) < 128
