"""The result depends neither on the number of threads nor on where the tasks run."""

import hashlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from pipeline import parallel
from pipeline.params import ReportParams
from pipeline.runtime.tasks import map_tasks
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from shardset.shards import verify_shards, write_shards
from tests.helpers.shard_sets import make_params


def run_all(raw_dir, path, scheduler=None):
    """Run the stages after the download, on a cluster those that can, and return the hash of every file."""
    write_stats(raw_dir, path / "stats.json", scheduler)
    params = make_params(samples_per_shard=1500)
    normalize_shards(raw_dir, path / "stats.json", path / "shards", params, scheduler)
    if scheduler is None:
        write_report(raw_dir, path / "shards", path / "report", ReportParams(decimals=4))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def expected(synthetic_raw, tmp_path_factory):
    return run_all(synthetic_raw, tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("num_threads", ["1", "2", "7"])
def test_every_byte_is_the_same_on_any_number_of_threads(num_threads, expected, synthetic_raw, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", num_threads)
    assert run_all(synthetic_raw, tmp_path) == expected
    assert len(expected) == 1 + (2 * (8 + 2) + 3) + 7


@pytest.mark.parametrize("setting", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(setting, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", setting)
    with pytest.raises(InputError, match=f"PIPELINE_THREADS: .* got '{setting}'"):
        map_tasks(str, [1])


def test_results_come_in_the_order_of_the_items_and_the_first_error_ends_it():
    assert map_tasks(lambda item: item * item, range(50)) == [item * item for item in range(50)]
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


def test_every_byte_is_the_same_on_a_cluster_of_two_processes(cluster, expected, synthetic_raw, tmp_path):
    shards = {name: sha256 for name, sha256 in expected.items() if not name.startswith("report/")}
    assert run_all(synthetic_raw, tmp_path, cluster) == shards


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_worker_that_is_lost_amid_a_shard_is_made_up_for(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    images = np.arange(12, dtype=np.uint8).reshape(4, 3, 1, 1)
    was_here = tmp_path / "was here"

    def blocks(split, start, stop):
        yield images[start:stop]
        if not was_here.exists():
            was_here.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    labels = dict.fromkeys(("train", "test"), np.arange(4))
    settings = {"dtype": "uint8", "image_shape": (3, 1, 1), "samples_per_shard": 4}
    written = {}
    for name in ("cluster", "here"):
        (tmp_path / name).mkdir()
        if name == "here":
            written[name] = write_shards(tmp_path / name, labels, blocks, **settings)
            continue
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as cluster:
            written[name] = write_shards(
                tmp_path / name, labels, blocks, **settings, scheduler=cluster.scheduler_address
            )
    assert was_here.exists()
    assert written["cluster"] == written["here"]


def test_a_cluster_that_can_not_do_the_work_is_told_so(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr(parallel, "WORKERS_WITHIN", 0.5)
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0", host="127.0.0.1") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(InputError, match=f"scheduler {address}: has no worker, and got none in 0.5 s"):
            map_tasks(str, [1], address)
        code = (
            "import runpy, sys; sys.modules['pipeline'] = None; "
            "runpy.run_module('distributed.cli.dask_worker', run_name='__main__')"
        )
        worker = subprocess.Popen([sys.executable, "-c", code, address, "--no-nanny", "--no-dashboard"])
        try:
            monkeypatch.setattr(parallel, "WORKERS_WITHIN", 30)
            with pytest.raises(InputError, match="its workers need this package"):
                map_tasks(str, [1], address)
        finally:
            worker.kill()
            worker.wait()


def test_a_command_runs_on_a_cluster(cluster, workspace, tiny_raw, tiny):
    (workspace.path / "data").mkdir(exist_ok=True)
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    for command in ("stats", "normalize"):
        done = workspace.pipeline(command, "--scheduler", cluster)
        assert (done.returncode, done.stderr) == (0, "")
    assert verify_shards(workspace.path / "data/shards").manifest.content_sha256 == tiny.content_sha256


def test_an_error_on_a_worker_is_the_same_error_here(cluster, synthetic_raw):
    def fail(item):
        raise CorruptDataError(f"{item} is wrong")

    with pytest.raises(CorruptDataError, match="a shard is wrong"):
        map_tasks(fail, ["a shard"], cluster)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "::"])
def test_a_scheduler_that_can_not_be_reached_is_named(address, monkeypatch):
    dask = pytest.importorskip("dask", reason="the extra dask is not installed")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(InputError, match="^scheduler "):
        map_tasks(str, [1], address)


def test_a_scheduler_that_needs_certificates_is_named(workspace, tiny_raw):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    (workspace.path / "data").mkdir()
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    done = workspace.pipeline("stats", "--scheduler", "tls://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: scheduler tls://127.0.0.1:9: can't be reached: ")
    assert "Traceback" not in done.stderr
