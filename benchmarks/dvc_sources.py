"""What DVC's own commands take with images as a folder of 50,000 files and as one .tar, as the dep of a stage.

    python -m benchmarks.dvc_sources

Prints the table of docs/large-datasets.md. The files have 20 kB each. Only hashing takes longer where they are larger.
"""

import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

WORK_DIR = Path("build/bench/dvc").absolute()
NUM_FILES = 50_000
FILE_BYTES = 20_000
STAGE = """\
stages:
  download:
    cmd: mkdir data/raw && touch data/raw/manifest.json
    deps:
    - {source}
    outs:
    - data/raw
"""
# The commands, in the order in which they run; all but the first and the last two find nothing to do.
COMMANDS = (
    ("repro", "first `dvc repro`, apart from the stage itself"),
    ("repro", "`dvc repro`, nothing to do"),
    ("status", "`dvc status`, nothing to do"),
    ("add {source}", "`dvc add`"),
    ("repro", "`dvc repro` after `dvc add`, nothing to do"),
    ("commit --force", "`dvc commit`, nothing to do"),
    ("push", "`dvc push` to another folder of the disk"),
    ("push", "`dvc push`, nothing to do"),
)


def main():
    measured = {source: measure(source) for source in ("data/images", "data/images.tar")}
    print("| command | folder, s | .tar, s |\n|---|--:|--:|")
    for number, (_, label) in enumerate(COMMANDS):
        print(f"| {label} | {' | '.join(f'{seconds[number]:.1f}' for seconds in measured.values())} |")


def measure(source):
    """Return the seconds of each command with images at a path of a new project."""
    project_dir = make_project(source)
    seconds = []
    for command, _ in COMMANDS:
        os.sync()
        start = time.perf_counter()
        run(project_dir, "dvc", *command.format(source=source).split())
        seconds.append(time.perf_counter() - start)
        print(f"{source}: {command}: {seconds[-1]:.1f} s", flush=True)
    shutil.rmtree(WORK_DIR)
    return seconds


def make_project(source):
    shutil.rmtree(WORK_DIR, ignore_errors=True)
    project_dir = WORK_DIR / "project"
    images_dir = project_dir / "data/images"
    block = os.urandom(FILE_BYTES - 8)
    for number in range(NUM_FILES):
        path = images_dir / f"class_{number % 100:02}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8) + block)
    if source.endswith(".tar"):
        with tarfile.open(project_dir / source, "w") as archive:
            archive.add(images_dir, "images")
        shutil.rmtree(images_dir)
    (project_dir / "dvc.yaml").write_text(STAGE.format(source=source), encoding="utf-8")
    run(project_dir, "git", "init", "--quiet")
    run(project_dir, "dvc", "init", "--quiet")
    shutil.copy(".dvc/config", project_dir / ".dvc/config")
    run(project_dir, "dvc", "remote", "add", "--default", "here", str(WORK_DIR / "remote"))
    return project_dir


def run(project_dir, *command):
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(WORK_DIR / "site")}
    subprocess.run(command, cwd=project_dir, env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
