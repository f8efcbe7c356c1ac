import errno
import operator
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.runtime import tasks
from pipeline.runtime.cluster import open_workers
from shardset.errors import CorruptDataError, InputError
from tests.helpers.cluster import local_cluster
from tests.helpers.workspace import REPOSITORY, assert_fails

pytest.importorskip("distributed", reason="the extra dask is not installed")
from pipeline.runtime import cluster as cluster_module

pytestmark = pytest.mark.slow


@pytest.fixture
def scheduler_alone():
    """The address of a scheduler without workers."""
    with local_cluster(num_workers=0) as address:
        yield address


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


def count_down(folder, errors, item):
    """Note a try of `item`, and raise the next of these errors, if any is left; return the number of tries."""
    number = len([*folder.glob(f"{item}-*")])
    (folder / f"{item}-{number}").touch()
    if number < len(errors):
        raise errors[number]
    return number + 1


def die_once(folder, item):
    if not (folder / f"died-{item}").exists():
        (folder / f"died-{item}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_are_in_the_order_of_the_items(cluster, tmp_path):
    with open_workers(cluster, tmp_path) as map_tasks:
        reported: list[int] = []
        assert map_tasks(operator.neg, range(50), reported.append) == [-item for item in range(50)]
        assert sorted(reported) == [*range(50)]
        assert map_tasks(operator.neg, []) == []
    assert [*tmp_path.iterdir()] == []


def test_error_on_a_worker_is_raised_here(cluster, tmp_path):
    task = partial(count_down, tmp_path, [CorruptDataError("it is wrong")] * 9)
    with open_workers(cluster, tmp_path) as map_tasks, pytest.raises(CorruptDataError, match="^it is wrong$"):
        map_tasks(task, ["shard"])
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]  # it was not tried again


@pytest.mark.parametrize(
    ("number", "num_tries"), [(errno.EIO, 3), (errno.ESTALE, 3), (errno.ENOSPC, 1), (errno.EACCES, 1)]
)
def test_error_that_may_pass_is_tried_again(number, num_tries, cluster, tmp_path):
    task = partial(count_down, tmp_path, [OSError(number, os.strerror(number), "a/file")] * 2)
    with open_workers(cluster, tmp_path) as map_tasks:
        if num_tries > 1:
            assert map_tasks(task, ["shard"]) == [num_tries]
        else:
            with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
                map_tasks(task, ["shard"])
            assert raised.value.filename == "a/file"
    assert len([*tmp_path.glob("shard-*")]) == num_tries


def test_error_that_does_not_pass_ends_the_stage(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "TRIES", 2)
    task = partial(count_down, tmp_path, [OSError(errno.EIO, "Input/output error", "a/file")] * 9)
    with open_workers(cluster, tmp_path) as map_tasks, pytest.raises(OSError, match="Input/output error: 'a/file'"):
        map_tasks(task, ["shard"])
    assert len([*tmp_path.glob("shard-*")]) == 2


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_task_of_a_lost_worker_is_tried_again(tmp_path):
    with local_cluster(num_workers=1) as address, open_workers(address, tmp_path) as map_tasks:
        assert map_tasks(partial(die_once, tmp_path), range(3)) == [0, 1, 2]
    assert (tmp_path / "died-0").exists()


def kill_worker(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_task_that_kills_each_worker_ends_the_stage(tmp_path):
    with (
        local_cluster(num_workers=2) as address,
        open_workers(address, tmp_path) as map_tasks,
        pytest.raises(PipelineError, match=f"scheduler {address}: workers were lost during a task: "),
    ):
        map_tasks(kill_worker, [0])


def count_faults(_):
    """Count the pages of memory that the system hands out while blocks of 3 MB are made and dropped."""
    import resource

    before = 0
    for _ in range(2):  # the first time some are needed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            bytearray(3_000_000)[:] = bytes(3_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_workers_keep_freed_memory(cluster, tmp_path):
    with open_workers(cluster, tmp_path) as map_tasks:
        (num_faults,) = map_tasks(count_faults, [0])
    assert num_faults < 2000  # of 30,000


def test_cluster_without_workers_is_named(scheduler_alone, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "FIRST_WORKER_TIMEOUT", 0.5)
    message = f"scheduler {scheduler_alone}: no worker joined within 0.5 s"
    with pytest.raises(InputError, match=message), open_workers(scheduler_alone, tmp_path):
        pass


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("no package", "No module named 'pipeline"),
        ("other code", r"cifar-pipeline \S+ \(code [0-9a-f]{8}\) with Pillow"),
        ("other Pillow", r"with Pillow 1\.2\.3 on Python"),
        ("older code", "has no attribute '_describe_worker'|can't get attribute|Can't get attribute"),
    ],
)
def test_worker_with_another_version_is_named(fault, found, scheduler_alone, tmp_path):
    if fault == "no package":
        setup = "sys.modules['pipeline'] = None"
    elif fault == "other Pillow":
        (tmp_path / "pillow-1.2.3.dist-info").mkdir()
        (tmp_path / "pillow-1.2.3.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: pillow\nVersion: 1.2.3\n"
        )
        setup = f"sys.path.insert(0, {str(tmp_path)!r})"
    else:
        for package in ("pipeline", "shardset"):
            shutil.copytree(REPOSITORY / package, tmp_path / package)
        path = tmp_path / "pipeline/runtime/cluster.py"
        text = path.read_text()
        path.write_text(f"{text}# changed" if fault == "other code" else text.replace("def _describe", "def _other"))
        setup = f"sys.path.insert(0, {str(tmp_path)!r})"
    with (
        start_worker(scheduler_alone, setup),
        pytest.raises(InputError) as raised,
        open_workers(scheduler_alone, tmp_path),
    ):
        pass
    here = re.escape(cluster_module._worker_version())
    expected = rf"scheduler {scheduler_alone}: worker tcp://\S+: expected {here}, got .*({found}).*\. Install the same "
    assert re.match(expected, str(raised.value))
    assert "\n" not in str(raised.value)


def test_worker_with_another_version_that_joins_later_is_named(scheduler_alone, tmp_path):
    for package in ("pipeline", "shardset"):
        shutil.copytree(REPOSITORY / package, tmp_path / "other" / package)
    path = tmp_path / "other/pipeline/runtime/cluster.py"
    path.write_text(f"{path.read_text()}# changed")
    (tmp_path / "written").mkdir()

    def run(others):
        with open_workers(scheduler_alone, tmp_path) as map_tasks:
            others.enter_context(start_worker(scheduler_alone, f"sys.path.insert(0, {str(tmp_path / 'other')!r})"))
            map_tasks(partial(write_slowly, tmp_path / "written"), range(100))

    message = "worker tcp://.*: expected .*, got .*Install the same version on all workers"
    with (
        start_worker(scheduler_alone, f"sys.path.insert(0, {str(REPOSITORY)!r})"),
        ExitStack() as others,
        pytest.raises(InputError, match=message),
    ):
        run(others)
    written = [path.read_text() for path in (tmp_path / "written").iterdir()]
    assert {*written} == {tasks.installed_version()}


def write_slowly(folder, number):
    time.sleep(0.1)
    (folder / str(number)).write_text(tasks.installed_version())


def test_worker_that_does_not_share_the_files_is_named(scheduler_alone, tmp_path):
    # A worker on a machine with other files: there the folder is another one, which hides this one.
    setup = (
        "from pathlib import Path; exists = Path.exists; "
        f"Path.exists = lambda self, **options: {tmp_path.name!r} not in self.parts and exists(self, **options)"
    )
    with (
        start_worker(scheduler_alone, setup),
        pytest.raises(InputError) as raised,
        open_workers(scheduler_alone, tmp_path),
    ):
        pass
    assert re.fullmatch(
        rf"scheduler {scheduler_alone}: worker tcp://\S+: can't see {tmp_path}\. All workers need a file system that "
        r"they share with this machine, under the same path\.",
        str(raised.value),
    )


def test_workers_with_their_own_temporary_folders_share_one(separate_cluster, tmp_path):
    with open_workers(separate_cluster.address, tmp_path) as map_tasks:
        written = map_tasks(partial(write_name, tmp_path), range(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(8)]
    assert len(set(written)) <= 2
    assert str(Path.cwd()) not in written


def write_name(folder, number):
    (folder / str(number)).touch()
    return str(Path.cwd())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "::"])
def test_unreachable_scheduler_is_named(address, tmp_path):
    import dask

    message = f"^scheduler {address}: can't be reached: "
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match=message),
        open_workers(address, tmp_path),
    ):
        pass


def test_scheduler_that_needs_certificates_is_named(workspace, tiny_raw):
    (workspace.path / "data/raw").symlink_to(tiny_raw)
    done = workspace.pipeline("stats", "--scheduler", "tls://127.0.0.1:9")
    assert_fails(done, 2, "Error: scheduler tls://127.0.0.1:9: can't be reached: ")
