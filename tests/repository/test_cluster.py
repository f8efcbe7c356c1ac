"""All stages on Dask workers: the same bytes as on threads, whatever happens to the workers."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import yaml

from pipeline.params import ImagesParams
from pipeline.runtime.cluster import open_workers
from pipeline.stages import audit, download, normalize, report, stats
from tests.helpers.cluster import separate_workers
from tests.helpers.image_files import make_image_folder, make_picture
from tests.helpers.shard_sets import audit_params, make_params, write_raw_set
from tests.helpers.workspace import REPOSITORY, assert_fails, assert_succeeds, hash_files, make_workspace

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs/cluster.md"
STAGES = ("download", "stats", "audit", "normalize", "report")
MAX_BYTES_PER_SHARD = 100_000  # that cross the network


def ignore_progress(action, done, total):
    pass


def make_project(path, source):
    """A project for own images, of which it makes shards of 5 samples."""
    workspace = make_workspace(path)
    params = yaml.safe_load((path / "params.yaml").read_text())
    params["dataset"] = "images"
    params["images"] |= {"source": str(source), "size": 32, "resize": 36}
    params["audit"]["ignore"] = None
    params["normalize"]["samples_per_shard"] = 5
    (path / "params.yaml").write_text(yaml.safe_dump(params))
    return workspace


def run_commands(workspace, **env):
    for command in STAGES:
        assert_succeeds(workspace.pipeline(command, **env))
    return hash_files(workspace.path / "data")


class Stages:
    """The stages in this process, with small shards, on a scheduler or on threads."""

    def __init__(self, path: Path, source: Path, scheduler: str | None = None, samples_per_shard: int = 3) -> None:
        self.path, self.source, self.scheduler = path, source, scheduler
        self.samples_per_shard = samples_per_shard
        path.mkdir(exist_ok=True)

    def run(self, stage: str) -> None:
        path, workers = self.path, (ignore_progress, self.scheduler)
        if stage == "download":
            images = ImagesParams(str(self.source), 32, 36, "exif", "fail", None, None)
            download.download_dataset("images", images, path / "raw", path, None, *workers)
        elif stage == "stats":
            stats.write_stats(path / "raw", path / "stats.json", *workers)
        elif stage == "audit":
            audit.audit_images(path / "raw", path / "audit", path / "audit.json", audit_params(), *workers)
        elif stage == "normalize":
            params = make_params(samples_per_shard=self.samples_per_shard)
            normalize.normalize_shards(path / "raw", path / "stats.json", path / "shards", params, *workers)
        else:
            report.write_report(path / "raw", path / "audit", path / "shards", path / "report", 4, *workers)

    def run_all(self) -> dict[str, str]:
        for stage in STAGES:
            self.run(stage)
        return hash_files(self.path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of JPEGs in three splits."""
    return make_image_folder(tmp_path_factory.mktemp("images"), each=8)


@pytest.fixture(scope="module", autouse=True)
def small_raw_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 3)
        yield


@pytest.fixture(scope="module")
def expected_dir(images, tmp_path_factory):
    """What the stages write on threads."""
    path = tmp_path_factory.mktemp("expected")
    Stages(path, images).run_all()
    return path


@pytest.fixture(scope="module")
def expected(expected_dir):
    return hash_files(expected_dir)


def test_commands_give_the_same_bytes_on_separate_workers(images, separate_cluster, tmp_path):
    on_threads = run_commands(make_project(tmp_path / "threads", images))
    on_workers = make_project(tmp_path / "workers", images)
    assert run_commands(on_workers, PIPELINE_SCHEDULER=separate_cluster.address) == on_threads
    assert sum(name.startswith("shards/train/images-") for name in on_threads) == 4
    assert [*on_workers.path.rglob("*.tmp")] == []


def test_stages_give_the_same_bytes_on_a_local_cluster(cluster, images, expected, tmp_path):
    assert Stages(tmp_path / "out", images, cluster).run_all() == expected
    assert sum(name.startswith("raw/train/images-") for name in expected) == 6


def test_documented_script_runs_the_stages_on_local_workers(images, tmp_path):
    workspace = make_project(tmp_path / "project", images)
    (block,) = re.findall(r"^```python\n(.*?LocalCluster.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (workspace.path / "run.py").write_text(block)
    printed = assert_succeeds(workspace.run(sys.executable, "run.py"))
    assert {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")} == {*STAGES}
    assert workspace.repro() == set()


@pytest.mark.parametrize("stage", ["download", "audit", "normalize"])
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_stage_survives_a_worker_killed_during_work(stage, images, expected, tmp_path):
    with separate_workers(tmp_path / "workers") as cluster:
        stages = Stages(tmp_path / "out", images, cluster.address)
        for earlier in STAGES[: STAGES.index(stage)]:
            Stages(stages.path, images).run(earlier)
        killer = Thread(target=kill_when_busy, args=(cluster.workers[0], stages.path))
        killer.start()
        stages.run(stage)
        killer.join()
    assert cluster.workers[0].returncode == -9
    written = hash_files(stages.path)
    assert written == {name: expected[name] for name in written}


def kill_when_busy(process, folder):
    """Kill a process as soon as a task has finished, which leaves its record in the work folder of the stage."""
    for _ in range(1000):
        if [*folder.glob(".*.work.tmp/*.records/[!.]*-*")]:
            process.kill()
            return
        time.sleep(0.005)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_stage_that_was_killed_on_a_cluster_goes_on_with_threads(cluster, images, expected_dir, tmp_path):
    workspace = make_project(tmp_path / "project", images)
    shutil.copytree(expected_dir, workspace.path / "data", dirs_exist_ok=True)
    workspace.set_param("  samples_per_shard: 5", "  samples_per_shard: 1")
    work_dir = workspace.path / "data/.shards.work.tmp"
    with workspace.start("normalize", "--scheduler", cluster) as stage:
        kill_when_busy(stage, work_dir.parent)
    assert stage.returncode == -9
    finished = [record.name.partition("-") for record in work_dir.glob("set-*.records/*-*.npy")]
    files = [f"{split}/images-{name}" for split, _, name in finished]
    (set_dir,) = (path for path in work_dir.glob("set-*") if path.suffix != ".records")
    written = {file: (set_dir / file).stat().st_ino for file in files}
    assert 0 < len(written) < 48
    assert_succeeds(workspace.pipeline("normalize"))
    assert {file: (workspace.path / "data/shards" / file).stat().st_ino for file in files} == written
    assert_succeeds(workspace.pipeline("verify", "data/shards"))


def test_stages_run_each_task_twice_at_once(cluster, images, expected, tmp_path, monkeypatch):
    num_tasks: dict[str, int] = {}

    @contextmanager
    def open_doubling_workers(scheduler, shared_dir):
        with open_workers(scheduler, shared_dir) as map_tasks:

            def map_twice(function, items, done=lambda item: None):
                all_items = list(items)
                results = map_tasks(function, [item for item in all_items for _ in range(2)])
                for item in all_items:
                    done(item)
                num_tasks[stage] = num_tasks.get(stage, 0) + len(results)
                return results[::2]

            yield map_twice

    stages = Stages(tmp_path / "out", images, cluster)
    for module, stage in zip((download, stats, audit, normalize, report), STAGES, strict=True):
        monkeypatch.setattr(module, "open_workers", open_doubling_workers)
        stages.run(stage)
    assert hash_files(stages.path) == expected
    assert all(num_tasks[stage] >= 12 for stage in STAGES)


@pytest.fixture(scope="module")
def many_files(tmp_path_factory):
    """A .tar of 20,000 equal pictures of 8 pixels with long names."""
    path = tmp_path_factory.mktemp("many") / "images.tar"
    file = io.BytesIO()
    make_picture(0, (8, 8)).save(file, "PNG")
    with tarfile.open(path, "w") as archive:
        for number in range(20_000):
            member = tarfile.TarInfo(f"train/class_{number % 10}/{'a long name ' * 4}{number:06}.png")
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))
    return path


def test_download_sends_little_over_the_network(many_files, separate_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 5000)
    before = separate_cluster.num_bytes
    images = ImagesParams(str(many_files), 8, None, "exif", "fail", None, None)
    raw_dir, address = tmp_path / "raw", separate_cluster.address
    download.download_dataset("images", images, raw_dir, tmp_path, None, ignore_progress, address)
    sent = separate_cluster.num_bytes - before
    assert 0 < sent < 4 * MAX_BYTES_PER_SHARD
    assert (raw_dir / "train/samples.csv").stat().st_size > 5 * 4 * MAX_BYTES_PER_SHARD  # what may not be sent


def test_stages_send_little_over_the_network(separate_cluster, tmp_path, monkeypatch):
    """Four shards of 5,000 samples: the digests of each alone have 160 kB."""
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 5000)
    images = np.random.default_rng(0).integers(0, 256, (20_000, 3, 4, 4), np.uint8)
    write_raw_set(tmp_path / "raw", images, num_classes=10)
    stages = Stages(tmp_path, tmp_path, separate_cluster.address, 5000)
    for stage in STAGES[1:]:
        before = separate_cluster.num_bytes
        stages.run(stage)
        assert 0 < separate_cluster.num_bytes - before < 4 * MAX_BYTES_PER_SHARD, stage


def can_hide_folders():
    return bool(shutil.which("unshare")) and not subprocess.run(["unshare", "--mount", "true"], check=False).returncode


@pytest.mark.skipif(not can_hide_folders(), reason="needs the permission to mount file systems")
@pytest.mark.parametrize("command", STAGES)
def test_worker_without_the_files_is_named_in_one_line(command, elsewhere):
    workspace, address = elsewhere
    done = workspace.pipeline(command, "--scheduler", address)
    assert_fails(done, 2, f"Error: scheduler {address}: worker tcp://", f": can't see {workspace.path / 'data'}")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def elsewhere(images, expected_dir, tmp_path_factory):
    """A project with all outputs, and a scheduler, one of whose workers has another folder in place of the project."""
    path = tmp_path_factory.mktemp("elsewhere")
    workspace = make_project(path / "project", images)
    shutil.copytree(expected_dir, workspace.path / "data", dirs_exist_ok=True)
    with separate_workers(path / "workers", hidden_dir=workspace.path) as cluster:
        yield workspace, cluster.address


def test_certificates_come_from_the_configuration_of_dask(workspace, tiny_raw, tmp_path):
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    security = distributed.Security.temporary()
    files = {
        "CA_FILE": security.tls_ca_file,
        "CLIENT__CERT": security.tls_client_cert,
        "CLIENT__KEY": security.tls_client_key,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    env = {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(tmp_path / name) for name in files}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", host="tls://127.0.0.1", security=security
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        assert_succeeds(workspace.pipeline("stats", "--scheduler", address, **env))
        assert_fails(workspace.pipeline("stats", "--scheduler", address), 2, f"scheduler {address}: can't be reached")
