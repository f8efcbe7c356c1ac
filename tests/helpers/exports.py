"""Small sets of pixels to export, and programs that read exports in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import ShardSet, open_shards
from tests.helpers.image_files import make_image_folder
from tests.helpers.shard_sets import download, make_images, make_params, write_raw_set
from tests.helpers.workspace import REPOSITORY


def write_colour_set(path: Path) -> ShardSet:
    """Three splits of images of 8 x 12 pixels, with three classes."""
    images = {split: make_images(count, (3, 8, 12), count) for split, count in (("train", 7), ("val", 3), ("test", 4))}
    return write_raw_set(path, num_classes=3, **images)


def write_grey_set(path: Path) -> ShardSet:
    """Pixels with a normalization to be applied, in shards of four samples."""
    raw = write_raw_set(path / "raw", train=make_images(10, (1, 9, 5)))
    write_stats(raw.dir, path / "stats.json")
    normalize_shards(raw.dir, path / "stats.json", path / "grey", make_params(dtype="uint8", samples_per_shard=4))
    return open_shards(path / "grey")


def write_image_set(path: Path) -> ShardSet:
    """Three splits of image files, whose names are kept."""
    source = make_image_folder(path / "source", classes=("cat", 'dög: "no" #1'))
    download("images", path / "raw", path / "archives", source)
    return open_shards(path / "raw")


def run_program(program: str, *args: str | Path) -> str:
    """Run a program in the repository, because libraries give warnings, which are errors here; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_program_output(program: str, *args: str | Path) -> object:
    """Run a program whose last line of output is JSON, and parse that."""
    return json.loads(run_program(program, *args).splitlines()[-1])


EXPORT = """
import sys
from pathlib import Path
from pipeline.export.formats import Format
from pipeline.stages.export import export_set

for set_dir, target_dir in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    export_set(Path(set_dir), Path(target_dir), Format(sys.argv[1]))
"""


def export_in_process(target: str, sets: dict[Path, ShardSet]) -> None:
    """Export sets, by their folders, in a process of its own, for libraries that give warnings."""
    run_program(EXPORT, target, *(path for target_dir, shards in sets.items() for path in (shards.dir, target_dir)))
