"""Every output is flushed to disk before it gets its final name, and then the folder that holds the name."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.file_server import FileServer, serve
from tests.helpers.workspace import REPOSITORY, register_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows can't flush folders"),
]

# Runs a stage, and writes one JSON line for each call: what was flushed, by inode and size, or which names changed.
RECORD_CALLS = """
import json, os, runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
fsync, rename, replace = os.fsync, os.rename, os.replace

def record(*call):
    log.write(json.dumps(call) + "\\n")

def recorded_fsync(descriptor):
    fsync(descriptor)
    status = os.fstat(descriptor)
    record("fsync", status.st_ino, status.st_size)

def recorded(function):
    def call(source, target):
        function(source, target)
        record("rename", os.path.abspath(target))
    return call

os.fsync, os.rename, os.replace = recorded_fsync, recorded(rename), recorded(replace)
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


OUTS = {
    "download": ["data/raw"],
    "stats": ["data/stats.json"],
    "audit": ["data/audit", "data/audit.json"],
    "normalize": ["data/shards"],
    "report": [
        f"data/report/{name}" for name in ("report.html", "report.md", "metrics.json", "pixels.csv", "histograms.csv")
    ],
}


@pytest.fixture(scope="module")
def project_dir(tiny, tmp_path_factory):
    """A folder in which every stage ran on the tiny dataset, with the calls of each stage in calls-STAGE.jsonl."""
    path = tmp_path_factory.mktemp("project").resolve()
    for package in ("pipeline", "shardset"):
        shutil.copytree(REPOSITORY / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
    register_dataset(path / "pipeline", "tiny", tiny.facts())
    params = (REPOSITORY / "params.yaml").read_text().replace("\ndataset: cifar10\n", "\ndataset: tiny\n")
    (path / "params.yaml").write_text(params)
    (path / "data").mkdir()
    shutil.copy(REPOSITORY / "data/not_duplicates.csv", path / "data")
    with serve(FileServer(tiny.archive)) as server:
        environment = os.environ | {"PYTHONPATH": str(path), "PIPELINE_SOURCE": server.url}
        for stage in OUTS:
            command = (sys.executable, "-c", RECORD_CALLS, f"calls-{stage}.jsonl", stage)
            subprocess.run(command, cwd=path, env=environment, stdout=subprocess.DEVNULL, check=True)
    return path


def read_calls(stage, project_dir):
    return [json.loads(line) for line in (project_dir / f"calls-{stage}.jsonl").read_text().splitlines()]


def flush_of(path):
    """The call that flushes a file or folder as it is now."""
    return ["fsync", path.stat().st_ino, path.stat().st_size]


@pytest.mark.parametrize("stage", OUTS)
def test_output_is_flushed_before_and_its_folder_after_the_rename(stage, project_dir):
    calls = read_calls(stage, project_dir)
    for out in (project_dir / name for name in OUTS[stage]):
        renamed = calls.index(["rename", str(out)])
        before, after = calls[:renamed], calls[renamed + 1 :]
        files = [path for path in [out, *out.rglob("*")] if path.is_file()]
        folders = [path for path in [out, *out.rglob("*")] if path.is_dir()]
        for path in [*files, *folders]:
            assert flush_of(path) in before, f"{path} is not flushed"
        last = max(before.index(flush_of(path)) for path in files)
        assert all(before.index(flush_of(folder)) > last for folder in folders), "a folder is flushed before its files"
        assert out.parent.stat().st_ino in [call[1] for call in after], f"{out.parent} is not flushed"


def test_archive_is_flushed_before_it_is_renamed(project_dir):
    archive_path = project_dir / "data/archives/tiny.tar.gz"
    calls = read_calls("download", project_dir)
    assert flush_of(archive_path) in calls[: calls.index(["rename", str(archive_path)])]
