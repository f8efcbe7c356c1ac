import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipeline.runtime import tasks
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import write_shards
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from shardset.shards import verify_shards
from tests.helpers.shard_sets import make_params
from tests.helpers.workspace import hash_files


def run_all(raw_dir, path, scheduler=None):
    """Run the stages after download, with `scheduler` those that accept one, and return the hash of every file."""
    write_stats(raw_dir, path / "stats.json", scheduler)
    params = make_params(samples_per_shard=1500)
    normalize_shards(raw_dir, path / "stats.json", path / "shards", params, scheduler)
    if scheduler is None:
        write_report(raw_dir, path / "shards", path / "report", decimals=4)
    return hash_files(path)


@pytest.fixture(scope="module")
def expected(synthetic_raw, tmp_path_factory):
    return run_all(synthetic_raw, tmp_path_factory.mktemp("expected"))


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", ["1", "7"])
def test_result_is_the_same_with_any_number_of_threads(num_threads, expected, synthetic_raw, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", num_threads)
    assert run_all(synthetic_raw, tmp_path) == expected
    assert len(expected) == 1 + (2 * (8 + 2) + 3) + 7


@pytest.mark.parametrize("setting", ["0", "-1", "two", "1.5"])
def test_wrong_number_of_threads_is_refused(setting, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", setting)
    with pytest.raises(InputError, match=f"PIPELINE_THREADS: should be a whole number from 1 to 9999, got '{setting}'"):
        map_tasks(str, [1])


def test_results_are_in_the_order_of_the_items():
    assert map_tasks(lambda item: item * item, range(50)) == [item * item for item in range(50)]
    assert map_tasks(str, []) == []


def test_first_error_ends_the_tasks():
    done = []

    def divide(item):
        done.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        map_tasks(divide, [3, 0, *range(1, 10_000)])
    assert len(done) < 10_000


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_result_is_the_same_on_a_cluster(cluster, expected, synthetic_raw, tmp_path):
    shards = {name: sha256 for name, sha256 in expected.items() if not name.startswith("report/")}
    assert run_all(synthetic_raw, tmp_path, cluster) == shards


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_lost_worker_is_retried(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    images = np.arange(12, dtype=np.uint8).reshape(4, 3, 1, 1)
    killed = tmp_path / "killed"

    def blocks(split, start, stop):
        yield images[start:stop]
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    labels: Any = {split: np.arange(4) for split in ("train", "test")}
    write = partial(write_shards, dtype="uint8", image_shape=(3, 1, 1), samples_per_shard=4)
    for name in ("cluster", "here"):
        (tmp_path / name).mkdir()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        on_cluster = write(tmp_path / "cluster", labels, blocks, scheduler=cluster.scheduler_address)
    assert killed.exists()
    assert on_cluster == write(tmp_path / "here", labels, blocks)
    assert hash_files(tmp_path / "cluster") == hash_files(tmp_path / "here")


@pytest.mark.slow
def test_cluster_without_usable_workers_is_named(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr(tasks, "FIRST_WORKER_TIMEOUT", 0.5)
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0", host="127.0.0.1") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(InputError, match=f"scheduler {address}: no worker joined within 0.5 s"):
            map_tasks(str, [1], address)
        code = (
            "import runpy, sys; sys.modules['pipeline'] = None; "
            "runpy.run_module('distributed.cli.dask_worker', run_name='__main__')"
        )
        worker = subprocess.Popen([sys.executable, "-c", code, address, "--no-nanny", "--no-dashboard"])
        try:
            monkeypatch.setattr(tasks, "FIRST_WORKER_TIMEOUT", 30)
            with pytest.raises(InputError, match="its workers don't have this package"):
                map_tasks(str, [1], address)
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.slow
def test_commands_run_on_a_cluster(cluster, workspace, tiny_raw, tiny):
    (workspace.path / "data").mkdir(exist_ok=True)
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    for command in ("stats", "normalize"):
        done = workspace.pipeline(command, "--scheduler", cluster)
        assert (done.returncode, done.stderr) == (0, "")
    assert verify_shards(workspace.path / "data/shards").manifest.content_sha256 == tiny.content_sha256


@pytest.mark.slow
def test_error_on_a_worker_is_raised_here(cluster, synthetic_raw):
    def fail(item):
        raise CorruptDataError(f"{item} is wrong")

    with pytest.raises(CorruptDataError, match="a shard is wrong"):
        map_tasks(fail, ["a shard"], cluster)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "::"])
@pytest.mark.slow
def test_unreachable_scheduler_is_named(address, monkeypatch):
    dask = pytest.importorskip("dask", reason="the extra dask is not installed")
    message = f"^scheduler {address}: can't be reached: "
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(InputError, match=message):
        map_tasks(str, [1], address)


@pytest.mark.slow
def test_scheduler_that_needs_certificates_is_named(workspace, tiny_raw):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    (workspace.path / "data").mkdir()
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    done = workspace.pipeline("stats", "--scheduler", "tls://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: scheduler tls://127.0.0.1:9: can't be reached: ")
    assert "Traceback" not in done.stderr
