import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipeline.runtime import tasks
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import ShardJob, ShardTask, write_shard, write_shards
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from shardset.shards import verify_shards
from tests.helpers.shard_sets import audit, make_images, make_params, write_raw_set
from tests.helpers.workspace import REPOSITORY, hash_files


def run_all(raw_dir, path, scheduler=None):
    """Run the stages after download, with `scheduler` those that accept one, and return the hash of every file."""
    write_stats(raw_dir, path / "stats.json", scheduler)
    params = make_params(samples_per_shard=1500)
    normalize_shards(raw_dir, path / "stats.json", path / "shards", params, scheduler)
    if scheduler is None:
        audit(raw_dir, path / "audit")
        write_report(raw_dir, path / "audit", path / "shards", path / "report", decimals=4)
    return hash_files(path)


@pytest.fixture(scope="module")
def expected(synthetic_raw, tmp_path_factory):
    return run_all(synthetic_raw, tmp_path_factory.mktemp("expected"))


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", ["1", "2", "7"])
def test_result_is_the_same_with_any_number_of_threads(num_threads, expected, synthetic_raw, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", num_threads)
    assert run_all(synthetic_raw, tmp_path) == expected
    assert len(expected) == 1 + (2 * (8 + 2) + 3) + (6 + 1) + 5  # of stats, normalize, audit and report


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


def test_task_carries_only_its_own_part_of_the_set(tmp_path, monkeypatch):
    sizes: list[int] = []

    def record(function, items, scheduler=None):
        items = list(items)
        sizes.extend(len(pickle.dumps((function, item))) for item in items)
        return map_tasks(function, items, scheduler)

    for module in ("numerics.statistics", "shards.writer"):
        monkeypatch.setattr(f"pipeline.{module}.map_tasks", record)
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 10)
    raw = write_raw_set(tmp_path / "raw", make_images(2000, (3, 4, 4)))
    sizes.clear()  # the pixels of raw sets never leave this process
    write_stats(raw.dir, tmp_path / "stats.json")
    normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", make_params(samples_per_shard=10))
    assert len(sizes) == 200 + 200
    assert max(sizes) < 2000  # the labels of all samples alone have 16 kB, the manifest 80 kB


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_result_is_the_same_on_a_cluster(cluster, expected, synthetic_raw, tmp_path):
    shards = {name: sha256 for name, sha256 in expected.items() if not name.startswith(("audit", "report/"))}
    assert run_all(synthetic_raw, tmp_path, cluster) == shards


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_lost_worker_is_retried(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    images = np.arange(12, dtype=np.uint8).reshape(4, 3, 1, 1)
    killed = tmp_path / "killed"

    class Blocks:
        def __iter__(self):
            yield images
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def blocks(split, start, stop):
        return Blocks()

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


@pytest.fixture
def scheduler_alone():
    """The address of a scheduler without workers."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0", host="127.0.0.1") as cluster:
        yield cluster.scheduler_address


@contextmanager
def start_worker(address, setup):
    """Start a worker that runs `setup` before it imports anything else."""
    code = f"import runpy, sys; {setup}; runpy.run_module('distributed.cli.dask_worker', run_name='__main__')"
    worker = subprocess.Popen([sys.executable, "-c", code, address, "--no-nanny", "--no-dashboard"])
    try:
        yield
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.slow
def test_cluster_without_workers_is_named(scheduler_alone, monkeypatch):
    monkeypatch.setattr(tasks, "FIRST_WORKER_TIMEOUT", 0.5)
    with pytest.raises(InputError, match=f"scheduler {scheduler_alone}: no worker joined within 0.5 s"):
        map_tasks(str, [1], scheduler_alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("no package", "No module named 'pipeline"),
        ("other code", r"cifar-pipeline \S+ \(code [0-9a-f]{8}\) on Python"),
        ("older code", "has no attribute 'installed_version'|can't get attribute|Can't get attribute"),
    ],
)
def test_worker_with_another_version_is_named(fault, found, scheduler_alone, tmp_path):
    setup = "sys.modules['pipeline'] = None"
    if fault != "no package":
        for package in ("pipeline", "shardset"):
            shutil.copytree(REPOSITORY / package, tmp_path / package)
        path = tmp_path / "pipeline/runtime/tasks.py"
        text = path.read_text()
        path.write_text(f"{text}# changed" if fault == "other code" else text.replace("def installed", "def other"))
        setup = f"sys.path.insert(0, {str(tmp_path)!r})"
    with start_worker(scheduler_alone, setup), pytest.raises(InputError) as raised:
        map_tasks(str, [1], scheduler_alone)
    here = re.escape(tasks.installed_version())
    expected = rf"scheduler {scheduler_alone}: worker tcp://\S+: expected {here}, got .*({found}).*\. Install the same "
    assert re.match(expected, str(raised.value))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_copies_of_a_task_on_two_workers_agree(cluster, tmp_path):
    (tmp_path / "train").mkdir()
    task = ShardTask("train", 0, 500, "00000-of-00001.npy")
    job = ShardJob(tmp_path, task, "uint8", (3, 32, 32), np.arange(500), [make_images(500)])
    shards = map_tasks(write_shard, [job] * 8, cluster)
    assert shards == [shards[0]] * 8
    assert hash_files(tmp_path) == {file.path: file.sha256 for file in (shards[0].images, shards[0].labels)}


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
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    done = workspace.pipeline("stats", "--scheduler", "tls://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: scheduler tls://127.0.0.1:9: can't be reached: ")
    assert "Traceback" not in done.stderr
