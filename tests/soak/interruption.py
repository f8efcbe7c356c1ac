"""Processes that are killed or told to stop, and two that are at work in one place."""

import atexit
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from random import Random

from pipeline import synthetic
from pipeline.stages.download import write_raw
from shardset.errors import CorruptDataError
from shardset.manifest import SPLITS
from shardset.shards import hash_content, verify_shards
from tests.helpers.workspace import Workspace, hash_files, make_workspace
from tests.soak import Experiment, WrongBytesError

REPOSITORY = Path(__file__).parent.parent.parent
REPRO = ("dvc", "repro", "--single-item", "stats", "normalize", "report")
STAGES = {"stats": "stats.json", "normalize": "shards", "report": "report"}
PARAMS = (REPOSITORY / "params.yaml").read_text().replace("samples_per_shard: 10000", "samples_per_shard: 180")
# Of the other process, or of the run before.
OTHER_PARAMS = PARAMS.replace("scheme: dataset", "scheme: unit").replace("dtype: float32", "dtype: uint8")

SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # which on Windows can't be handled either

Hashes = dict[str, str]


# Runs a stage until its n-th call to the system that changes what is on disk, and dies right before or after that.
DIE_AT_A_CALL = """
import os, runpy, signal, sys
left, after = int(sys.argv.pop(1)), sys.argv.pop(1) == "after"

def counted(call):
    def make(*args, **kwargs):
        global left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return make

for name in ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""
MOST_CALLS = {"stats": 6, "normalize": 45, "report": 44}  # of an undisturbed run


def start(stage: str, path: Path, *program: str) -> subprocess.Popen[str]:
    command = (sys.executable, *(program or ("-m", "pipeline")), stage)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=path, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end and return what was printed as an error."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("it hung") from None


def run(stage: str, path: Path) -> None:
    process = start(stage, path)
    stderr = finish(process)
    assert process.returncode == 0, stderr


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, as DVC does."""
    shutil.copytree(source, target, copy_function=os.link)


@cache
def undisturbed() -> tuple[Path, dict[str, float], Hashes]:
    """Run each stage with either params; return the folder of `new` and `old`, seconds by stage and all hashes."""
    path = Path(tempfile.mkdtemp(prefix="soak-interruption-"))
    atexit.register(shutil.rmtree, path)
    splits = synthetic.generate({"train": 900, "test": 180})
    seconds = {}
    for name, params in (("old", OTHER_PARAMS), ("new", PARAMS)):
        content_sha256 = hash_content(splits[split] for split in SPLITS)
        write_raw(path / name / "data/raw", "synthetic", synthetic.CLASSES, content_sha256, splits)
        (path / name / "params.yaml").write_text(params)
        for stage in STAGES:
            begin = time.monotonic()
            run(stage, path / name)
            seconds[stage] = time.monotonic() - begin
    # Read-only, as DVC's cache keeps them: what is written into one is seen, or fails.
    for file in path.rglob("data/**/*"):
        if file.is_file():
            file.chmod(0o444)
    return path, seconds, hash_files(path)


def make_inputs(stage: str, path: Path) -> None:
    """Put into `path` what a stage reads, with what the run before left in the place of its out."""
    whole, _, _ = undisturbed()
    (path / "params.yaml").write_text(PARAMS)
    (path / "data").mkdir()
    link_tree(whole / "new/data/raw", path / "data/raw")
    for earlier, name in STAGES.items():
        source = whole / ("old" if earlier == stage else "new") / "data" / name
        if source.is_dir():
            link_tree(source, path / "data" / name)
        else:
            os.link(source, path / "data" / name)
        if earlier == stage:
            return


def stop_and_run_again(stage: str, signals: tuple[signal.Signals, ...], random: Random, path: Path) -> None:
    """Stop a stage at any moment, check that what is there is whole, old or new, and that the next run mends it all."""
    whole, seconds, hashes = undisturbed()
    make_inputs(stage, path)
    out = path / "data" / STAGES[stage]
    number = random.choice(signals)
    if number == SIGKILL and random.random() < 0.5:
        place = str(random.randint(1, MOST_CALLS[stage])), random.choice(("before", "after"))
        process = start(stage, path, "-c", DIE_AT_A_CALL, *place)
    else:
        process = start(stage, path)
        time.sleep(random.uniform(0, 1.1 * seconds[stage]))
        process.send_signal(number)
    stderr = finish(process)
    old, new = (hash_files(whole / name / "data" / STAGES[stage]) for name in ("old", "new"))
    if number != SIGKILL:
        # Of Python's own start-up nothing can be said: our code does not run yet.
        assert "Traceback" not in stderr or "/pipeline/" not in stderr, stderr
        left = [file.name for file in (path / "data").rglob(".*")]
        assert not left, f"{left} were left behind"
        assert process.returncode != 0 or hash_files(out) == new, "it said that it came to its end"
    if stage == "normalize":
        expect_whole_sets(path / "data", old, new)
    elif not hash_files(out).keys() >= old.keys():
        raise WrongBytesError("an old file is gone, and no new one is in its place")
    for name, sha256 in hash_files(out).items():
        if sha256 not in (old.get(name), new.get(name)) and "/." not in name:
            raise WrongBytesError(f"{name} is neither the old file nor the new one")
    run(stage, path)
    if hash_files(out) != new:
        raise WrongBytesError("the next run gave other bytes")
    assert not list((path / "data").rglob(".*")), "the next run left something behind"
    assert hash_files(whole) == hashes, "a file that was shared by a hard link was written into"


def expect_whole_sets(data_dir: Path, *allowed: Hashes) -> None:
    """Open what looks like a shard set in `data_dir`: each has to be one of those allowed, or to be refused.

    One of them has to be there, though perhaps not in its place: a process may have ended between the two renames.
    """
    wanted = [strip_folder(hashes) for hashes in allowed]
    num_whole = 0
    for folder in data_dir.glob("*shards*/"):
        try:
            verify_shards(folder)
        except CorruptDataError:
            assert folder.name != "shards", "the set in its place is not whole"
        else:
            num_whole += 1
            if strip_folder(hash_files(folder)) not in wanted:
                raise WrongBytesError(f"{folder} opens, and is no set that was made")
    assert num_whole, "no set is left"


def strip_folder(hashes: Hashes) -> Hashes:
    return {name.partition("/")[2]: sha256 for name, sha256 in hashes.items()}


def two_at_once(random: Random, path: Path) -> None:
    """Run two normalize with different params into one place, and perhaps kill one: it holds the set of one of them."""
    whole, seconds, _ = undisturbed()
    make_inputs("normalize", path)
    (path / "other").mkdir()
    (path / "other/params.yaml").write_text(OTHER_PARAMS)
    (path / "other/data").symlink_to(path / "data")
    processes = [start("normalize", path)]
    time.sleep(random.uniform(0, seconds["normalize"]))
    processes.append(start("normalize", path / "other"))
    killed = random.choice((None, *processes))
    if killed:
        time.sleep(random.uniform(0, seconds["normalize"]))
        killed.kill()
    for process in processes:
        stderr = finish(process)
        if process.returncode == 1:
            assert "another process is writing it" in stderr, stderr
            assert stderr.count("\n") == 1, stderr
        elif process.returncode:
            assert process is killed, stderr
    old, new = (hash_files(whole / name / "data/shards") for name in ("old", "new"))
    expect_whole_sets(path / "data", old, new)
    if not killed:
        assert any(process.returncode == 0 for process in processes), "neither came to its end"
        assert not list((path / "data").glob(".*")), "something was left behind"
    run("normalize", path)
    if hash_files(path / "data/shards") != new:
        raise WrongBytesError("the next run gave other bytes")
    assert not list((path / "data").glob(".*")), "the next run left something behind"


@cache
def reproduced() -> tuple[Workspace, float]:
    """Run `dvc repro` with other params, and return the workspace and how long it took."""
    whole, _, _ = undisturbed()
    path = Path(tempfile.mkdtemp(prefix="soak-repro-"))
    atexit.register(shutil.rmtree, path)
    workspace = make_workspace(path / "workspace")
    shutil.copytree(whole / "new/data/raw", workspace.path / "data/raw")
    (workspace.path / "params.yaml").write_text(OTHER_PARAMS)
    begin = time.monotonic()
    done = workspace.run(*REPRO)
    assert done.returncode == 0, done.stderr
    return workspace, time.monotonic() - begin


def kill_repro(random: Random, path: Path) -> None:
    """Kill DVC and its stage at any moment: DVC's cache stays whole, and the next run has what it would have had."""
    whole, _, _ = undisturbed()
    source, seconds = reproduced()
    workspace = Workspace(path / "workspace")
    subprocess.run(["cp", "-a", source.path, workspace.path], check=True)  # which keeps the links to the cache
    (workspace.path / "params.yaml").write_text(PARAMS)
    process = subprocess.Popen(
        REPRO,
        cwd=workspace.path,
        env=workspace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(random.uniform(0, seconds))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGKILL)
    process.wait()
    expect_whole_cache(workspace)
    done = workspace.run(*REPRO)
    assert done.returncode == 0, done.stderr
    expect_whole_cache(workspace)
    for name in STAGES.values():
        # DVC adds a .gitignore to a folder of outs.
        if not hash_files(whole / "new/data" / name).items() <= hash_files(workspace.path / "data" / name).items():
            raise WrongBytesError(f"the next run gave another {name}")
    assert workspace.run("dvc", "status", *STAGES).stdout.startswith("Data and pipelines are up to date")


def expect_whole_cache(workspace: Workspace) -> None:
    for file in (workspace.path / ".dvc/cache/files/md5").glob("??/*"):
        if hashlib.md5(file.read_bytes()).hexdigest() != file.parent.name + file.name.removesuffix(".dir"):
            raise WrongBytesError(f"{file} in DVC's cache is not what its name says")


AGAIN = "old or new bytes in place, none between; the next run gives the right ones and cleans up"

EXPERIMENTS: tuple[Experiment, ...] = (
    *(
        Experiment(f"SIGKILL during `{stage}`", AGAIN, partial(stop_and_run_again, stage, (SIGKILL,)), 2, 200)
        for stage in STAGES
    ),
    *(
        Experiment(
            f"SIGTERM or Ctrl-C during `{stage}`",
            "no traceback and nothing left behind; else the same",
            partial(stop_and_run_again, stage, (signal.SIGTERM, signal.SIGINT)),
            2,
            100,
        )
        for stage in STAGES
    ),
    Experiment(
        "two `normalize` into one place, one of them perhaps killed",
        "the set of one or of the other; who comes second is told so",
        two_at_once,
        2,
        100,
    ),
    Experiment(
        "SIGKILL of `dvc repro` and its stage",
        "DVC's cache whole; the next `dvc repro` gives the right bytes",
        kill_repro,
        1,
        10,
    ),
)
