"""Stages of many shards that are killed, and go on with the shards that are complete."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from random import Random

from PIL import Image

from tests.helpers.shard_sets import make_images
from tests.helpers.workspace import REPOSITORY, hash_files
from tests.soak import Experiment, WrongBytesError

NUM_SHARDS, SAMPLES_PER_SHARD = 40, 16
NUM_THREADS = 2
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # can't be handled on Windows either
OUTS = {"download": "raw", "normalize": "shards"}
PARAMS = (
    (REPOSITORY / "params.yaml")
    .read_text()
    .replace("\ndataset: cifar10\n", "\ndataset: images\n")
    .replace("size: 224\n", "size: 64\n")
    .replace("resize: 256\n", "resize: 72\n")
    .replace("samples_per_shard: 10000", f"samples_per_shard: {SAMPLES_PER_SHARD}")
)
# Raw shards have a fixed size in bytes, far too large for forty of them here.
RUN_WITH_SMALL_SHARDS = f"""
import runpy
import pipeline.shards.raw
pipeline.shards.raw.MAX_SAMPLES_PER_SHARD = {SAMPLES_PER_SHARD}
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


def start(stage: str, path: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PIPELINE_THREADS": str(NUM_THREADS)}
    command = (sys.executable, "-c", RUN_WITH_SMALL_SHARDS, stage)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=path, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(stage: str, path: Path) -> float:
    """Run a stage, and return the seconds it took."""
    begin = time.monotonic()
    process = start(stage, path)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return time.monotonic() - begin


@cache
def undisturbed() -> tuple[Path, dict[str, float]]:
    """Run the stages on images of many shards; return the folder, and the seconds by stage."""
    path = Path(tempfile.mkdtemp(prefix="soak-resumption-"))
    atexit.register(shutil.rmtree, path)
    for number, image in enumerate(make_images(NUM_SHARDS * SAMPLES_PER_SHARD, (3, 96, 80))):
        folder = path / "data/images" / f"class-{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:04d}.jpg", quality=90)
    (path / "params.yaml").write_text(PARAMS)
    seconds = {stage: run(stage, path) for stage in ("download", "stats", "normalize")}
    assert len(shard_times(path / "data/raw")) == len(shard_times(path / "data/shards")) == NUM_SHARDS
    return path, seconds


def shard_times(folder: Path) -> dict[str, int]:
    """When each complete shard was written, by the name of its file of images."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("images-*.npy")}


def kill_and_go_on(stage: str, random: Random, path: Path) -> None:
    """Kill a stage at any time, once or twice. Check that the next run repeats only the shards in flight."""
    reference_dir, seconds = undisturbed()
    (path / "data").mkdir()
    shutil.copy(reference_dir / "params.yaml", path)
    for name in ("images", "raw", "stats.json"):
        if name != OUTS[stage]:
            (path / "data" / name).symlink_to(reference_dir / "data" / name)
    work_dir = path / f"data/.{OUTS[stage]}.work.tmp"
    complete: dict[str, int] = {}
    for _ in range(random.choice((1, 2))):
        process = start(stage, path)
        time.sleep(random.uniform(0, 1.1 * seconds[stage]))
        process.send_signal(SIGKILL)
        process.communicate(timeout=60)
        complete = shard_times(work_dir)
    finished = (path / "data" / OUTS[stage]).exists()
    run(stage, path)
    data_dir = path / "data"
    if hash_files(data_dir / OUTS[stage]) != hash_files(reference_dir / "data" / OUTS[stage]):
        raise WrongBytesError("the next run gave different bytes")
    assert not list(data_dir.glob(".*")), "the next run left temporary files behind"
    after = shard_times(data_dir / OUTS[stage])
    repeated = [name for name in complete if after[name] != complete[name]]
    # A thread may have written a shard, but not yet the record that proves it.
    assert finished or len(repeated) <= NUM_THREADS, f"{len(repeated)} complete shards were written again"


EXPERIMENTS: tuple[Experiment, ...] = tuple(
    Experiment(
        f"SIGKILL during `{stage}` of {NUM_SHARDS} shards, once or twice",
        "the next run gives the same bytes and repeats only the shards in flight",
        partial(kill_and_go_on, stage),
        quick=2,
        soak=50,
    )
    for stage in OUTS
)
