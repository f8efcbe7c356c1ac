import json
import shutil

from tests.helpers.workspace import REPOSITORY, commit, make_repository, make_workspace


def test_the_example_trains_on_imported_shards_and_beats_chance(tmp_path):
    upstream = make_workspace(tmp_path / "cifar-pipeline")
    upstream.set_param("dataset: cifar10", "dataset: synthetic")
    upstream.set_param("dtype: float32", "dtype: uint8")
    upstream.repro("normalize")
    commit(upstream, "Release the synthetic dataset", "v1")
    training = make_repository(tmp_path / "training")
    shutil.copytree(REPOSITORY / "examples/train", training.path, dirs_exist_ok=True)
    (training.path / "data").mkdir()
    assert_succeeds(training.run("dvc", "import", upstream.path, "data/shards", "--rev", "v1", "--out", "data/shards"))
    training.set_param("epochs: 4", "epochs: 1")
    assert_succeeds(training.run("git", "add", "--all"))
    assert_succeeds(training.run("git", "commit", "--quiet", "--message", "Train on v1"))
    # One thread: beside other tests, two wait for each other more than they work.
    assert_succeeds(training.run("dvc", "repro", PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1"))
    metrics = json.loads(assert_succeeds(training.run("dvc", "metrics", "show", "--json")))[""]["data"][
        "dvclive/metrics.json"
    ]
    assert metrics["data"]["test"]["accuracy"] > 0.5  # of ten classes
    assert_succeeds(training.run("dvc", "plots", "show"))
    page = (training.path / "dvc_plots/index.html").read_text()
    assert "Test samples by class" in page
    assert "accuracy" in page
