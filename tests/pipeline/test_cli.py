import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.workspace import REPOSITORY, assert_fails, hash_files, make_workspace

HELP = ["download", "stats", "normalize", "report", "verify"]


@pytest.fixture
def tiny_workspace(workspace, tiny_raw):
    """A workspace whose data/raw holds the tiny dataset."""
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    return workspace


def test_each_command_prints_one_line(tiny_workspace):
    for command, part in (
        (["stats"], "data/stats.json: tiny train, 100 images, mean 0.4987 0.4991 0.4984, std 0.2900 0.2901 0.2904"),
        (["normalize"], "data/shards: tiny, 100 train, 20 test, 3x32x32 float32, 1 MB in 2 shards"),
        (["report"], "data/report: report.html, report.md, metrics.json and tables"),
        (["verify", "data/shards"], "data/shards: tiny, 100 train, 20 test, 3x32x32 float32, 1 MB in 2 shards"),
        (["verify", "data/raw"], "every file is as the manifest says"),
    ):
        done = tiny_workspace.pipeline(*command)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        assert part in done.stdout


def test_the_python_of_the_readme_reads_the_shards_whatever_their_dtype(tiny_workspace):
    training, *snippets = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    tiny_workspace.pipeline("stats")
    tiny_workspace.pipeline("normalize")
    tiny_workspace.pipeline("report")
    save = "import sys; np.save(sys.argv[1], {})\n"
    assert tiny_workspace.run("python", "-c", snippets[0] + save.format("images"), "float32.npy").returncode == 0
    tiny_workspace.set_param("dtype: float32", "dtype: uint8")
    tiny_workspace.pipeline("normalize")
    tiny_workspace.pipeline("report")
    done = tiny_workspace.run("python", "-c", "".join(snippets) + save.format("values"), "uint8.npy")
    assert done.returncode == 0, done.stderr
    done = tiny_workspace.run("python", "-c", training + "print([batch.dtype for batch in next(iter(loader))])")
    assert done.stdout == "[torch.float32, torch.int64]\n", done.stderr
    assert (tiny_workspace.path / "uint8.npy").read_bytes() == (tiny_workspace.path / "float32.npy").read_bytes()


def test_help_names_every_command(workspace):
    done = workspace.pipeline("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in HELP)


@pytest.mark.parametrize(
    "command", [["stats"], ["normalize"], ["report"], ["verify", "data/raw"], ["--help"], ["verify", "--help"]]
)
def test_no_command_but_download_imports_torch_and_none_but_report_what_draws(command, tiny_workspace):
    tiny_workspace.pipeline("stats")
    tiny_workspace.pipeline("normalize")
    heavy = () if command == ["report"] else ("jinja2", "matplotlib")
    program = (
        f"import atexit, runpy, sys\nheavy = {heavy}\n"
        "atexit.register(lambda: print('imported:', sorted({'torch', 'torchvision', *heavy} & set(sys.modules))))\n"
        f"sys.argv = ['pipeline', *{command!r}]\n"
        "runpy.run_module('pipeline', run_name='__main__')\n"
    )
    done = tiny_workspace.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported: []\n")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what memory was used at most")
@pytest.mark.parametrize("command", [["stats"], ["normalize"], ["verify", "data/shards"]])
def test_memory_is_that_of_a_few_blocks_whatever_the_size(command, synthetic_raw, workspace):
    (workspace.path / "data").mkdir(exist_ok=True)
    (workspace.path / "data/raw").symlink_to(synthetic_raw)
    for stage in ("stats", "normalize"):
        assert workspace.pipeline(stage).returncode == 0

    def peak_mb(*args):
        program = (
            "import atexit, re, runpy, sys\n"
            "from pathlib import Path\n"
            "import pipeline.cli, pipeline.normalize, pipeline.params\n"
            "peak = lambda: print(re.search('VmHWM:[^0-9]*([0-9]+)', Path('/proc/self/status').read_text())[1])\n"
            "atexit.register(peak)\n"
            f"sys.argv = ['pipeline', *{args!r}]\n"
            f"{bool(args)} and runpy.run_module('pipeline', run_name='__main__')\n"
        )
        return int(workspace.run("python", "-c", program).stdout.splitlines()[-1]) * 1024 / 1e6

    assert peak_mb(*command) - peak_mb() < 30  # of 43 MB of pixels and 172 MB of normalized ones


def test_importing_the_package_imports_nothing_heavy(workspace):
    done = workspace.run(
        "python", "-c", "import sys, pipeline; assert not {'torch', 'numpy', 'msgspec'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_broken_params_are_one_line_and_nothing_is_written(tiny_workspace):
    tiny_workspace.set_param("  samples_per_shard: 10000", "  samples_per_shard: 0")
    before = sorted(path for path in tiny_workspace.path.rglob("*") if "__pycache__" not in path.parts)
    for command in ("download", "normalize", "report"):
        done = tiny_workspace.pipeline(command)
        assert_fails(done, 2, "params.yaml: normalize.samples_per_shard: should be a whole number >= 1, got 0")
        assert done.stderr.count("\n") == 1
    assert sorted(path for path in tiny_workspace.path.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "the file: should be a mapping of keys to values, got null"),
        (b"dataset: caf\xe9", "not valid YAML: 'utf-8' codec can't decode"),
        (b"a: " + b"[" * 9999, "not valid YAML: nested too deeply"),
        (b"dataset: &a [*a]", "dataset: should be a string, got [[[["),
        (None, "can't be read: Is a directory"),
    ],
)
def test_what_is_no_params_file_is_one_line_and_nothing_is_written(content, part, workspace):
    path = workspace.path / "params.yaml"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    for command in ("download", "normalize", "report"):
        done = workspace.pipeline(command)
        assert_fails(done, 2, f"Error: params.yaml: {part}")
        assert done.stderr.count("\n") == 1
    assert not (workspace.path / "data").exists()


def test_a_stage_without_its_input_says_what_to_run(workspace):
    for command in ("stats", "normalize", "report"):
        assert_fails(workspace.pipeline(command), 1, "data/raw/manifest.json: missing", "run `dvc repro`")


def test_verify_names_what_differs(tiny_workspace):
    path = tiny_workspace.path / "data/raw/test/images-00000-of-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (tiny_workspace.path / "data/raw/note.txt").touch()
    done = tiny_workspace.pipeline("verify", "data/raw")
    assert_fails(
        done, 1, "data/raw/test/images-00000-of-00001.npy: expected SHA-256", "data/raw/note.txt: not in the manifest"
    )
    assert "labels" not in done.stderr


def test_verify_of_no_folder_is_a_usage_error(workspace):
    assert_fails(workspace.pipeline("verify", "absent"), 2, "absent")


def test_a_source_that_does_not_exist_is_bad_input(workspace):
    assert_fails(
        workspace.pipeline("download", "--source", "absent.tar.gz"), 2, "source absent.tar.gz: no such file or folder"
    )
    assert_fails(workspace.pipeline("download", PIPELINE_SOURCE="absent.tar.gz"), 2, "source absent.tar.gz")


@pytest.mark.skipif(os.name != "posix", reason="needs signals that can be sent to one process")
def test_a_stage_that_is_told_to_stop_leaves_nothing_behind(workspace, synthetic_raw):
    shutil.copytree(synthetic_raw, workspace.path / "data/raw")
    workspace.pipeline("stats")
    workspace.set_param("samples_per_shard: 10000", "samples_per_shard: 10")  # seconds of work
    before = sorted((workspace.path / "data").iterdir())
    # A shell that runs the tests in the background has them ignore Ctrl-C, and with them the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        process = workspace.start("normalize")
        while not list((workspace.path / "data").glob(".shards.*.tmp/train/images-*")):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, stderr = process.communicate()
        assert process.returncode == 128 + number
        assert "Traceback" not in stderr
        assert sorted((workspace.path / "data").iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="needs signals that can be sent to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "place",
    [
        "os.kill(os.getpid(), {})",
        "try:\n  os.kill(os.getpid(), {})\nexcept BaseException:\n  raise ImportError('half imported') from None",
        "class It:\n  def __del__(self):\n    os.kill(os.getpid(), {})\nit = It()\ndel it\nimport time\ntime.sleep(9)",
    ],
    ids=["in a module", "where another exception is made of it", "where Python drops exceptions"],
)
def test_a_signal_amid_an_import_leaves_no_traceback(number, place, workspace):
    # The first module that the commands import.
    (workspace.path / "typer.py").write_text(f"import os\n{place.format(int(number))}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = workspace.pipeline("stats")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_is_named_and_nothing_is_left_behind(workspace, synthetic_raw):
    shutil.copytree(synthetic_raw, workspace.path / "data/raw")
    workspace.pipeline("stats")
    before = sorted((workspace.path / "data").iterdir())
    # As a full disk does, a limit on the size of files ends a write in its middle.
    limited = f"ulimit -f 20000; trap '' XFSZ; exec {sys.executable} -m pipeline normalize"
    assert_fails(workspace.run("bash", "-c", limited), 1, "data/shards: can't be written: File too large")
    stats = (workspace.path / "data/stats.json").read_bytes()
    limited = f"ulimit -f 0; trap '' XFSZ; exec {sys.executable} -m pipeline stats"
    assert_fails(workspace.run("bash", "-c", limited), 1, "Error: data/stats.json: File too large")
    assert (workspace.path / "data/stats.json").read_bytes() == stats
    assert sorted((workspace.path / "data").iterdir()) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    if os.name != "posix":
        pytest.skip("Windows mounts no file system so")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_fills_up_takes_nothing_that_was_there(small_disk, tiny_raw):
    workspace = make_workspace(small_disk / "workspace")
    data_dir = workspace.path / "data"
    shutil.copytree(tiny_raw, data_dir / "raw")
    repro = ("dvc", "repro", "--single-item", "stats", "normalize", "report")
    done = workspace.run(*repro)
    assert done.returncode == 0, done.stderr
    shards, cache = hash_files(data_dir / "shards"), hash_files(workspace.path / ".dvc/cache")
    workspace.set_param("scheme: dataset", "scheme: unit")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 700_000))
    assert_fails(workspace.pipeline("normalize"), 1, "data/shards: can't be written: No space left on device")
    assert hash_files(data_dir / "shards") == shards
    assert not list(data_dir.glob(".*.tmp"))
    done = workspace.run(*repro)  # which removes the shards first
    assert done.returncode != 0
    assert "data/shards: can't be written: No space left on device" in done.stderr
    cache_now = hash_files(workspace.path / ".dvc/cache")
    assert {name: cache_now[name] for name in cache} == cache
    workspace.set_param("scheme: unit", "scheme: dataset")
    assert workspace.run("dvc", "checkout", "normalize").returncode == 0
    assert hash_files(data_dir / "shards") == shards


def test_a_file_in_the_place_of_a_folder_is_named(tiny_workspace):
    tiny_workspace.pipeline("stats")
    (tiny_workspace.path / "data/report").touch()
    tiny_workspace.pipeline("normalize")
    assert_fails(tiny_workspace.pipeline("report"), 1, "data/report", "exists")
    shutil.rmtree(tiny_workspace.path / "data/shards")
    (tiny_workspace.path / "data/shards").write_text("a file")
    assert_fails(tiny_workspace.pipeline("normalize"), 1, "data/shards: can't be written: Not a directory")
    assert (tiny_workspace.path / "data/shards").read_text() == "a file"
    assert not list((tiny_workspace.path / "data").glob(".*.tmp"))
