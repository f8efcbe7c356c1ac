"""Processes that are killed or stopped, and two processes writing to the same place."""

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

from pipeline.sources import synthetic
from shardset.errors import CorruptDataError
from shardset.shards import verify_shards
from tests.helpers.shard_sets import write_raw_set
from tests.helpers.workspace import REPOSITORY, Workspace, make_workspace
from tests.soak import Experiment, WrongBytesError

REPRO = ("dvc", "repro", "--single-item", "stats", "audit", "normalize", "report")
# The names in data/ of what each stage writes.
STAGES = {"stats": ("stats.json",), "audit": ("audit", "audit.json"), "normalize": ("shards",), "report": ("report",)}
REPLACED_FOLDERS = {"audit": "audit", "normalize": "shards"}  # each by another one, with all its files
PARAMS = (REPOSITORY / "params.yaml").read_text().replace("samples_per_shard: 10000", "samples_per_shard: 180")
# Of the other process, or of the previous run.
OTHER_PARAMS = PARAMS.replace("scheme: dataset", "scheme: unit").replace("dtype: float32", "dtype: uint8")

# DVC leaves these incomplete if it is killed while it writes them. docs/reliability.md says what to do.
WRITTEN_IN_PLACE = ("dvc.lock", ".dvc/tmp/rwlock")

JUDGED = "data/not_duplicates.csv"

SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # can't be handled on Windows either

Hashes = dict[str, str]


def hash_files(path: Path) -> Hashes:
    """Hash the file at `path`, or all files of the folder there, by name relative to the parent folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path.parent).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def hash_outs(stage: str, data_dir: Path) -> Hashes:
    """Hash all files that a stage has written, by name relative to `data_dir`."""
    return {name: sha256 for out in STAGES[stage] for name, sha256 in hash_files(data_dir / out).items()}


# Runs a stage up to its n-th system call that changes the disk, and dies right before or after that call.
DIE_AT_CALL = """
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
MAX_CALLS = {"stats": 6, "audit": 73, "normalize": 82, "report": 30}  # in an undisturbed run


def start(stage: str, path: Path, *program: str) -> subprocess.Popen[str]:
    command = (sys.executable, *(program or ("-m", "pipeline")), stage)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=path, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the process to end, and return its stderr."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("the process hung") from None


def run(stage: str, path: Path) -> None:
    process = start(stage, path)
    stderr = finish(process)
    assert process.returncode == 0, stderr


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, as DVC does."""
    shutil.copytree(source, target, copy_function=os.link)


@cache
def undisturbed() -> tuple[Path, dict[str, float], Hashes]:
    """Run each stage with both params; return the folder of `new` and `old`, the seconds by stage, and all hashes.

    For `old`, the pairs of near-duplicates are listed as judged, so the audit differs too.
    """
    path = Path(tempfile.mkdtemp(prefix="soak-interruption-"))
    atexit.register(shutil.rmtree, path)
    images, _, _ = synthetic.generate({"train": 900, "test": 180})
    images["test"][:20] = images["train"][:20]
    seconds = {}
    for name, params in (("new", PARAMS), ("old", OTHER_PARAMS)):
        (path / name / "data").mkdir(parents=True)
        judged = path / "new/data/audit/near_duplicates.csv" if name == "old" else REPOSITORY / JUDGED
        shutil.copy(judged, path / name / JUDGED)
        write_raw_set(path / name / "data/raw", images["train"], images["test"], num_classes=10)
        (path / name / "params.yaml").write_text(params)
        for stage in STAGES:
            begin = time.monotonic()
            run(stage, path / name)
            seconds[stage] = time.monotonic() - begin
    # Read-only, as in DVC's cache. Writing into a file fails, or changes its hash.
    for file in path.rglob("data/**/*"):
        if file.is_file():
            file.chmod(0o444)
    return path, seconds, hash_files(path)


def make_inputs(stage: str, path: Path) -> None:
    """Link a stage's inputs into `path`, along with the output of a previous run."""
    reference_dir, _, _ = undisturbed()
    (path / "params.yaml").write_text(PARAMS)
    (path / "data").mkdir()
    os.link(reference_dir / "new" / JUDGED, path / JUDGED)
    link_tree(reference_dir / "new/data/raw", path / "data/raw")
    for earlier, names in STAGES.items():
        for name in names:
            source = reference_dir / ("old" if earlier == stage else "new") / "data" / name
            if source.is_dir():
                link_tree(source, path / "data" / name)
            else:
                os.link(source, path / "data" / name)
        if earlier == stage:
            return


def stop_and_run_again(stage: str, signals: tuple[signal.Signals, ...], random: Random, path: Path) -> None:
    """Stop a stage at any time. Check that each output is the old or the new one, and that the next run completes."""
    reference_dir, seconds, hashes = undisturbed()
    make_inputs(stage, path)
    data_dir = path / "data"
    number = random.choice(signals)
    if number == SIGKILL and random.random() < 0.5:
        place = str(random.randint(1, MAX_CALLS[stage])), random.choice(("before", "after"))
        process = start(stage, path, "-c", DIE_AT_CALL, *place)
    else:
        process = start(stage, path)
        time.sleep(random.uniform(0, 1.1 * seconds[stage]))
        process.send_signal(number)
    stderr = finish(process)
    old, new = (hash_outs(stage, reference_dir / name / "data") for name in ("old", "new"))
    if number != SIGKILL:
        # Before any code of the pipeline runs, Python may print a traceback of its own.
        assert "Traceback" not in stderr or "/pipeline/" not in stderr, stderr
        left = {file.name for file in data_dir.glob(".*")} - {f".{STAGES[stage][0]}.work.tmp"}
        assert not left, f"{left} were left behind"
        assert process.returncode != 0 or hash_outs(stage, data_dir) == new, "it exited with 0 before it had finished"
    if stage in REPLACED_FOLDERS:
        assert_complete_folders(REPLACED_FOLDERS[stage], data_dir, old, new)
    elif not hash_outs(stage, data_dir).keys() >= old.keys():
        raise WrongBytesError("an old file was removed without a new one in its place")
    for name, sha256 in hash_outs(stage, data_dir).items():
        if sha256 not in (old.get(name), new.get(name)) and "/." not in name:
            raise WrongBytesError(f"{name} is neither the old nor the new file")
    run(stage, path)
    if hash_outs(stage, data_dir) != new:
        raise WrongBytesError("the next run gave different bytes")
    assert not list(data_dir.rglob(".*")), "the next run left temporary files behind"
    assert hash_files(reference_dir) == hashes, "a hard-linked file was written into"


def assert_complete_folders(name: str, data_dir: Path, *allowed: Hashes) -> None:
    """Check that the folder `name`, and any other in `data_dir` that opens as a shard set, is one of those allowed.

    At least one must be, though perhaps under a temporary name: a process may have ended between the two renames.
    """
    expected = [strip_folder(hashes) for hashes in allowed]
    num_complete = 0
    for folder in data_dir.glob(f"*{name}*/"):
        if strip_folder(hash_files(folder)) in expected:
            num_complete += 1
        elif is_shard_set(folder):
            raise WrongBytesError(f"{folder} opens, but is none of the sets that were written")
        else:
            assert folder.name != name, f"{folder} is neither the old nor the new folder"
    assert num_complete, "no complete folder was left"


def is_shard_set(folder: Path) -> bool:
    try:
        verify_shards(folder)
    except CorruptDataError:
        return False
    return True


def strip_folder(hashes: Hashes) -> Hashes:
    return {name.partition("/")[2]: sha256 for name, sha256 in hashes.items() if "/" in name}


def two_at_once(random: Random, path: Path) -> None:
    """Run two `normalize` with different params into one folder, and perhaps kill one of them."""
    reference_dir, seconds, _ = undisturbed()
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
            assert "another process is writing to it" in stderr, stderr
            assert stderr.count("\n") == 1, stderr
        elif process.returncode:
            assert process is killed, stderr
    old, new = (hash_files(reference_dir / name / "data/shards") for name in ("old", "new"))
    assert_complete_folders("shards", path / "data", old, new)
    if not killed:
        assert any(process.returncode == 0 for process in processes), "neither process finished"
        assert not list((path / "data").glob(".*")), "temporary files were left behind"
    run("normalize", path)
    if hash_files(path / "data/shards") != new:
        raise WrongBytesError("the next run gave different bytes")
    assert not list((path / "data").glob(".*")), "the next run left temporary files behind"


@cache
def reproduced() -> tuple[Workspace, float]:
    """Run `dvc repro` with OTHER_PARAMS, and return the workspace and the seconds it took."""
    reference_dir, _, _ = undisturbed()
    path = Path(tempfile.mkdtemp(prefix="soak-repro-"))
    atexit.register(shutil.rmtree, path)
    workspace = make_workspace(path / "workspace")
    shutil.copytree(reference_dir / "new/data/raw", workspace.path / "data/raw")
    (workspace.path / "params.yaml").write_text(OTHER_PARAMS)
    shutil.copy(reference_dir / "old" / JUDGED, workspace.path / JUDGED)
    begin = time.monotonic()
    done = workspace.run(*REPRO)
    assert done.returncode == 0, done.stderr
    return workspace, time.monotonic() - begin


def kill_repro(random: Random, path: Path) -> None:
    """Kill DVC and its stage at any time. Check that DVC's cache is intact and that the next run completes."""
    reference_dir, _, _ = undisturbed()
    source, seconds = reproduced()
    workspace = Workspace(path / "workspace")
    subprocess.run(["cp", "-a", source.path, workspace.path], check=True)  # keeps the hard links to the cache
    (workspace.path / "params.yaml").write_text(PARAMS)
    (workspace.path / JUDGED).unlink()
    shutil.copy(reference_dir / "new" / JUDGED, workspace.path / JUDGED)
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
    assert_intact_cache(workspace)
    done = workspace.run(*REPRO)
    for name in WRITTEN_IN_PLACE:
        if done.returncode and name in done.stderr:
            (workspace.path / name).unlink()
            done = workspace.run(*REPRO)
    assert done.returncode == 0, done.stderr
    assert_intact_cache(workspace)
    for stage in STAGES:
        # DVC adds a .gitignore to the folder of an output.
        expected = hash_outs(stage, reference_dir / "new/data")
        if not expected.items() <= hash_outs(stage, workspace.path / "data").items():
            raise WrongBytesError(f"the next run of {stage} gave different bytes")
    assert workspace.run("dvc", "status", *STAGES).stdout.startswith("Data and pipelines are up to date")


def assert_intact_cache(workspace: Workspace) -> None:
    for file in (workspace.path / ".dvc/cache/files/md5").glob("??/*"):
        if hashlib.md5(file.read_bytes()).hexdigest() != file.parent.name + file.name.removesuffix(".dir"):
            raise WrongBytesError(f"{file} in DVC's cache does not match its name")


SLOW_STAGES = ("audit", "report")  # they take twice as long as the others

RECOVERED = "old or new output in place, never a mix; the next run is correct and cleans up"

EXPERIMENTS: tuple[Experiment, ...] = (
    *(
        Experiment(
            f"SIGKILL during `{stage}`",
            RECOVERED,
            partial(stop_and_run_again, stage, (SIGKILL,)),
            quick=2,
            soak=100 if stage in SLOW_STAGES else 200,
        )
        for stage in STAGES
    ),
    *(
        Experiment(
            f"SIGTERM or Ctrl-C during `{stage}`",
            "as for SIGKILL, but also no traceback and no temporary files except finished work",
            partial(stop_and_run_again, stage, (signal.SIGTERM, signal.SIGINT)),
            quick=2,
            soak=50 if stage in SLOW_STAGES else 100,
        )
        for stage in STAGES
    ),
    Experiment(
        "two `normalize` processes writing to one folder, one perhaps killed",
        "the complete output of one of them; the second process exits with an error",
        two_at_once,
        2,
        100,
    ),
    Experiment(
        "SIGKILL of `dvc repro` and its stage",
        "DVC's cache intact; the next `dvc repro` is correct",
        kill_repro,
        1,
        10,
    ),
)
