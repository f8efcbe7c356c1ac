import ast
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.workspace import assert_fails


@pytest.mark.skipif(os.name != "posix", reason="needs signals to a single process")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "work", "written"),
    [("normalize", ".shards.work.tmp", "set-*/train/images-*"), ("audit", ".audit.work.tmp", "survey-*/*")],
)
def test_stopped_stage_leaves_only_finished_work(stage, work, written, workspace, synthetic_raw):
    shutil.copytree(synthetic_raw, workspace.path / "data/raw")
    workspace.pipeline("stats")
    workspace.set_param("samples_per_shard: 10000", "samples_per_shard: 10")  # seconds of work
    data_dir = workspace.path / "data"
    before = {path.name for path in data_dir.iterdir()}
    for number in (signal.SIGTERM, signal.SIGINT):
        process = workspace.start(stage)
        while not list((data_dir / work).glob(written)):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, stderr = process.communicate()
        assert process.returncode == 128 + number
        assert "Traceback" not in stderr
        assert {path.name for path in data_dir.iterdir()} - before <= {work}
        shutil.rmtree(data_dir / work, ignore_errors=True)


@pytest.mark.skipif(os.name != "posix", reason="needs signals to a single process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "place",
    [
        "os.kill(os.getpid(), {})",
        "try:\n  os.kill(os.getpid(), {})\nexcept BaseException:\n  raise ImportError('interrupted') from None",
        "import time\nclass Dying:\n  def __del__(self):\n    os.kill(os.getpid(), {})\nDying()\ntime.sleep(9)",
    ],
    ids=["in a module", "replaced by another exception", "dropped by Python"],
)
def test_signal_during_import_prints_no_traceback(number, place, workspace):
    # The first module that the commands import.
    (workspace.path / "typer.py").write_text(f"import os\n{place.format(int(number))}")
    done = workspace.pipeline("stats")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


@pytest.mark.skipif(os.name != "posix", reason="needs signals to a single process")
def test_ignored_signal_stays_ignored(workspace):
    program = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import pipeline.__main__\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    done = workspace.run("python", "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_python_without_the_packages_is_named_in_one_line(workspace):
    done = workspace.run(sys.executable, "-S", "-m", "pipeline", "stats")
    assert_fails(
        done, 1, "Error: ", ": No module named 'typer'. Run `source .venv/bin/activate` first, or `make repro`."
    )
    assert done.stderr.count("\n") == 1


def test_old_python_is_named_in_one_line(workspace):
    program = (
        "import runpy, sys\n"
        "sys.version_info, sys.version = (3, 9, 18), '3.9.18 (main)'\n"
        "runpy.run_module('pipeline', run_name='__main__')\n"
    )
    done = workspace.run("python", "-c", program)
    assert_fails(done, 1, ": Python 3.11.4 or later is required, but this is 3.9.18. Run `source .venv/bin/activate`")
    assert done.stderr.count("\n") == 1
    ast.parse((workspace.path / "pipeline/__main__.py").read_text(), feature_version=(3, 7))


def test_missing_module_of_the_project_is_not_blamed_on_python(workspace):
    (workspace.path / "pipeline/stages/stats.py").unlink()
    done = workspace.pipeline("stats")
    assert done.returncode == 1
    assert "activate" not in done.stderr
    assert "No module named 'pipeline.stages.stats'" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_blas_starts_no_threads_of_its_own(workspace):
    program = (
        "import os\nimport pipeline.__main__\nimport numpy as np\n"
        "matrix = np.ones((2000, 2000), np.float32)\nmatrix @ matrix\nprint(len(os.listdir('/proc/self/task')))"
    )
    unset = ("--unset=OMP_NUM_THREADS", "--unset=OPENBLAS_NUM_THREADS")  # those of tests/conftest.py
    assert workspace.run("env", *unset, "python", "-c", program).stdout == "1\n"
