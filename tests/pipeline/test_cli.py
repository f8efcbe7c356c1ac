import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.memory import PRINT_PEAK
from tests.helpers.shard_sets import make_images, write_raw_set
from tests.helpers.workspace import assert_fails, hash_files, make_workspace

COMMANDS = ("download", "stats", "audit", "normalize", "report", "inspect", "init", "verify", "export")


@pytest.fixture
def tiny_workspace(workspace, tiny_raw):
    """A workspace whose data/raw holds the tiny dataset."""
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    return workspace


@pytest.mark.slow
def test_each_command_prints_one_line(tiny_workspace):
    for command, part in (
        (["stats"], "data/stats.json: tiny train, 100 images, mean 0.4987 0.4991 0.4984, std 0.2900 0.2901 0.2904"),
        (["audit"], "data/audit: 0 pairs of near-duplicates, 0 leaked test images, 0 train twins, 0 label conflicts"),
        (["normalize"], "data/shards: tiny, 100 train, 20 test, 3x32x32 float32, 1 MB in 2 shards"),
        (["report"], "data/report: report.html, report.md, metrics.json and tables"),
        (["verify", "data/shards"], "data/shards: tiny, 100 train, 20 test, 3x32x32 float32, 1 MB in 2 shards"),
        (["verify", "data/raw"], "every file matches the manifest"),
        (
            ["export", "data/raw", "build/hub", "--format", "parquet"],
            "build/hub: tiny, 100 train, 20 test, as PNG in parquet",
        ),
    ):
        done = tiny_workspace.pipeline(*command)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        assert part in done.stdout


@pytest.mark.slow
def test_download_prints_one_line(workspace):
    workspace.set_param("dataset: cifar10", "dataset: synthetic")
    done = workspace.pipeline("download")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "data/raw: synthetic, 12,000 train, 2,000 test, 3x32x32 uint8, 43 MB in 3 shards\n"


@pytest.mark.parametrize("command", [["python", "-m", "pipeline"], ["cifar-pipeline"]])
def test_version_is_that_of_the_package(command, workspace):
    done = workspace.run(*command, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cifar-pipeline {version('cifar-pipeline')}\n", "")


def test_no_command_prints_the_help(workspace):
    done = workspace.pipeline()
    assert "Usage: python -m pipeline [OPTIONS]" in done.stdout
    assert "Traceback" not in done.stderr


def test_help_lists_every_command(workspace):
    done = workspace.pipeline("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        *(["stats"], ["audit"], ["normalize"], ["report"]),
        *(["verify", "data/raw"], ["--help"], ["--version"], ["verify", "--help"]),
    ],
)
def test_commands_import_no_unneeded_heavy_module(command, tiny_workspace):
    for stage in ("stats", "audit", "normalize"):
        tiny_workspace.pipeline(stage)
    heavy = () if command == ["report"] else ("jinja2",)
    program = (
        f"import atexit, runpy, sys\nheavy = {heavy}\n"
        "atexit.register(lambda: print('imported:', sorted({'torch', 'torchvision', *heavy} & set(sys.modules))))\n"
        f"sys.argv = ['pipeline', *{command!r}]\n"
        "runpy.run_module('pipeline', run_name='__main__')\n"
    )
    done = tiny_workspace.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported: []\n")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is in Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "limit"),
    # The audit compares blocks of images, of the same size however many there are.
    [(["stats"], 30), (["normalize"], 30), (["verify", "data/shards"], 30), (["audit"], 80)],
    ids=["stats", "normalize", "verify", "audit"],
)
def test_memory_does_not_grow_with_the_dataset(command, limit, synthetic_raw, workspace):
    (workspace.path / "data").mkdir(exist_ok=True)
    (workspace.path / "data/raw").symlink_to(synthetic_raw)
    for stage in ("stats", "normalize"):
        assert workspace.pipeline(stage).returncode == 0

    def peak_mb(*args):
        program = (
            "import atexit, runpy, sys\n"
            "import pipeline.cli, pipeline.params\n"
            "import pipeline.stages.audit, pipeline.stages.normalize, pipeline.stages.stats\n"
            f"atexit.register(exec, {PRINT_PEAK!r}, {{}})\n"
            f"sys.argv = ['pipeline', *{args!r}]\n"
            f"{bool(args)} and runpy.run_module('pipeline', run_name='__main__')\n"
        )
        return int(workspace.run("python", "-c", program).stdout.splitlines()[-1]) * 1024 / 1e6

    assert peak_mb(*command) - peak_mb() < limit  # for 43 MB of pixels and 172 MB of normalized values


@pytest.mark.parametrize("package", ["pipeline", "shardset"])
def test_import_of_package_is_light(package, workspace):
    done = workspace.run(
        "python", "-c", f"import sys, {package}; assert not {{'torch', 'numpy', 'msgspec'}} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_wrong_param_is_one_line_and_writes_nothing(tiny_workspace):
    tiny_workspace.set_param("  samples_per_shard: 10000", "  samples_per_shard: 0")
    before = sorted(path for path in tiny_workspace.path.rglob("*") if "__pycache__" not in path.parts)
    for command in ("download", "audit", "normalize", "report"):
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
@pytest.mark.slow
def test_malformed_params_are_one_line_and_write_nothing(content, part, workspace):
    path = workspace.path / "params.yaml"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    for command in ("download", "audit", "normalize", "report"):
        done = workspace.pipeline(command)
        assert_fails(done, 2, f"Error: params.yaml: {part}")
        assert done.stderr.count("\n") == 1
    assert [file.name for file in (workspace.path / "data").iterdir()] == ["not_duplicates.csv"]


@pytest.mark.slow
def test_stage_without_its_input_says_what_to_run(workspace):
    for command in ("stats", "audit", "normalize", "report"):
        assert_fails(workspace.pipeline(command), 1, "data/raw/manifest.json: missing", "run `dvc repro`")


def test_verify_names_every_differing_file(tiny_workspace):
    path = tiny_workspace.path / "data/raw/test/images-00000-of-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (tiny_workspace.path / "data/raw/note.txt").touch()
    done = tiny_workspace.pipeline("verify", "data/raw")
    assert_fails(
        done, 1, "data/raw/test/images-00000-of-00001.npy: expected SHA-256", "data/raw/note.txt: not in the manifest"
    )
    assert "labels" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no loops of links")
@pytest.mark.parametrize("command", [["stats"], ["audit"], ["normalize"], ["report"], ["verify", "data/raw"]])
def test_unreadable_shard_is_not_called_corrupt(command, tiny_workspace):
    for stage in ("stats", "audit", "normalize"):
        tiny_workspace.pipeline(stage)
    shard_path = tiny_workspace.path / "data/raw/train/images-00000-of-00001.npy"
    shard_path.unlink()
    shard_path.symlink_to(shard_path.name)  # root may read everything but a link to itself
    done = tiny_workspace.pipeline(*command)
    assert_fails(done, 1)
    assert done.stderr == f"Error: {shard_path}: Too many levels of symbolic links\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on open files")
def test_lack_of_file_handles_is_not_called_corrupt(tiny_workspace):
    # The command succeeds first, which imports all modules. The limit then allows for the standard streams alone.
    program = (
        "import contextlib, io, pipeline.cli, resource, sys\n"
        "sys.argv = ['pipeline', 'verify', 'data/raw']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    pipeline.cli.main()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "pipeline.cli.main()\n"
    )
    done = tiny_workspace.run("python", "-c", program)
    assert_fails(done, 1)
    message = "Too many open files: the limit is 3; `ulimit -n NUMBER` raises it up to 3"
    assert re.fullmatch(f"Error: data/raw/manifest.json: {message}\n", done.stderr), done.stderr


def test_verify_without_folder_is_a_usage_error(workspace):
    assert_fails(workspace.pipeline("verify", "absent"), 2, "absent")


@pytest.mark.slow
def test_missing_source_is_an_input_error(workspace):
    assert_fails(
        workspace.pipeline("download", "--source", "absent.tar.gz"), 2, "source absent.tar.gz: no such file or folder"
    )
    assert_fails(workspace.pipeline("download", PIPELINE_SOURCE="absent.tar.gz"), 2, "source absent.tar.gz")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.slow
def test_full_disk_is_named_and_leaves_nothing(workspace, synthetic_raw):
    shutil.copytree(synthetic_raw, workspace.path / "data/raw")
    workspace.pipeline("stats")
    before = names_of_outputs(workspace)
    # Like a full disk, a limit on file sizes fails a write halfway.
    for stage, out in (("normalize", "data/shards"), ("audit", "data/audit")):
        limited = f"ulimit -f 20000; trap '' XFSZ; exec {sys.executable} -m pipeline {stage}"
        done = workspace.run("bash", "-c", limited)
        assert_fails(done, 1, f"{out}: can't be written: File too large")
        assert done.stderr.count("\n") == 1
    stats = (workspace.path / "data/stats.json").read_bytes()
    limited = f"ulimit -f 0; trap '' XFSZ; exec {sys.executable} -m pipeline stats"
    assert_fails(workspace.run("bash", "-c", limited), 1, "Error: data/stats.json: File too large")
    assert (workspace.path / "data/stats.json").read_bytes() == stats
    assert names_of_outputs(workspace) == before


def names_of_outputs(workspace):
    """The names in data/, without what failed stages have finished."""
    return {path.name for path in (workspace.path / "data").iterdir() if not path.name.endswith(".work.tmp")}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB, mounted for this test."""
    if os.name != "posix":
        pytest.skip("Windows has no tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.slow
def test_full_disk_keeps_previous_shards_and_cache(small_disk, tiny_raw):
    workspace = make_workspace(small_disk / "workspace")
    data_dir = workspace.path / "data"
    shutil.copytree(tiny_raw, data_dir / "raw")
    repro = ("dvc", "repro", "--single-item", "stats", "audit", "normalize", "report")
    done = workspace.run(*repro)
    assert done.returncode == 0, done.stderr
    shards, cache = hash_files(data_dir / "shards"), hash_files(workspace.path / ".dvc/cache")
    workspace.set_param("scheme: dataset", "scheme: unit")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 700_000))
    too_little = "MB will be written, but the disk has 0.7 MB free"
    assert_fails(workspace.pipeline("normalize"), 1, "data/shards: ", too_little)
    assert hash_files(data_dir / "shards") == shards
    assert not list(data_dir.glob(".*.tmp"))
    done = workspace.run(*repro)  # DVC removes the shards first
    assert done.returncode != 0
    assert too_little in done.stderr
    cache_after = hash_files(workspace.path / ".dvc/cache")
    assert {name: cache_after[name] for name in cache} == cache
    workspace.set_param("scheme: unit", "scheme: dataset")
    assert workspace.run("dvc", "checkout", "normalize").returncode == 0
    assert hash_files(data_dir / "shards") == shards


@pytest.mark.slow
def test_file_in_place_of_a_folder_is_named(tiny_workspace):
    for stage in ("stats", "audit", "normalize"):
        tiny_workspace.pipeline(stage)
    (tiny_workspace.path / "data/report").touch()
    assert_fails(tiny_workspace.pipeline("report"), 1, "data/report", "exists")
    for stage, name in (("normalize", "data/shards"), ("audit", "data/audit")):
        shutil.rmtree(tiny_workspace.path / name)
        (tiny_workspace.path / name).write_text("a file")
        assert_fails(tiny_workspace.pipeline(stage), 1, f"{name}: can't be written: Not a directory")
        assert (tiny_workspace.path / name).read_text() == "a file"
    left = {path.name for path in (tiny_workspace.path / "data").glob(".*.tmp")}
    assert left <= {".audit.work.tmp", ".shards.work.tmp"}


@pytest.mark.slow
def test_exceeded_limit_lists_the_pairs_and_keeps_all_files(tiny_workspace):
    data_dir = tiny_workspace.path / "data"
    shutil.rmtree(data_dir / "raw")
    images = make_images(30)
    write_raw_set(data_dir / "raw", images, images[[4, 9]])
    tiny_workspace.set_param("max_leaked:", "max_leaked: 1")
    done = tiny_workspace.pipeline("audit")
    assert_fails(done, 1, "Error: audit.max_leaked: expected at most 1, got 2:\n  test 0 and train 4, distance 0.0\n")
    assert (data_dir / "audit/details.json").exists()
    assert json.loads((data_dir / "audit.json").read_bytes())["test"]["leaked"] == 2
    shutil.copy(data_dir / "audit/near_duplicates.csv", data_dir / "not_duplicates.csv")
    assert tiny_workspace.pipeline("audit").returncode == 0


@pytest.mark.slow
def test_missing_list_of_pairs_to_ignore_is_an_input_error(tiny_workspace):
    (tiny_workspace.path / "data/not_duplicates.csv").unlink()
    done = tiny_workspace.pipeline("audit")
    assert_fails(done, 2, "Error: data/not_duplicates.csv: no such file, although params.yaml names it as audit.ignore")
    assert done.stderr.count("\n") == 1
    assert not (tiny_workspace.path / "data/audit").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
@pytest.mark.parametrize(
    ("stage", "num_files", "path"),
    [
        ("stats", 1, "data/stats.json"),  # besides its lock
        ("normalize", 2, "data/raw/train/images-00000-of-00001.npy"),  # besides the lock and the shard to be written
    ],
)
def test_too_many_open_files_name_the_limit(stage, num_files, path, tiny_workspace):
    assert tiny_workspace.pipeline("stats").returncode == 0
    # Limited late, because Python needs more files to start.
    program = (
        "import os, resource, pipeline.cli, pipeline.params, pipeline.stages.stats, pipeline.stages.normalize\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\nfirst = os.dup(0)\nos.close(first)\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (first + {num_files}, limits[1]))\npipeline.cli.main()"
    )
    done = tiny_workspace.run("python", "-c", program, stage, PIPELINE_THREADS="1")
    assert_fails(done, 1, f"{path}: Too many open files: the limit is ", "; `ulimit -n NUMBER` raises it up to ")
    assert done.stderr.count("\n") == 1
