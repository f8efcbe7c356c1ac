"""Run all stages on generated photographs, once for each number of images, and add what that took to the results.

    python -m benchmarks.growth 10000 30000 100000

This takes about an hour and a half on two cores, and up to 37 GB. The files of each size are removed afterwards.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from benchmarks.decode import RESIZE, SIZE
from benchmarks.growth.limits import TAR_PATH
from benchmarks.growth.pictures import write_tar
from benchmarks.growth.results import plot_growth
from benchmarks.results import describe_machine, write_results
from benchmarks.run import BARE, HERE, STAGE_OUTS, Contender, new_folder, stage
from pipeline.shards.raw import samples_per_shard

FOLDER = "growth"
WATCH_INTERVAL = 0.05  # seconds between samples of the memory
JPEG_BYTES = 66_000  # of a file in the archive, at most
SPARE_BYTES = 1_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", metavar="NUM_IMAGES", type=int, nargs="+")
    sizes = sorted(parser.parse_args().sizes)
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    growth: dict[str, Any] = {"machine": describe_machine(("numpy", "pillow")), "memory_gb": memory_gb}
    growth |= {"bare_mb": measure_bare(), "sizes": []}
    for num_images in sizes:
        with Project(num_images, dtype="uint8") as project:
            stages = {name: measure_stage(name, project.folder) for name in STAGE_OUTS}
        growth["sizes"].append({"images": num_images, "stages": stages})
        write_results(json.loads((HERE / "results.json").read_bytes()) | {"growth": growth}, HERE)
    plot_growth(growth, HERE / "growth.svg")


class Project:
    """A folder with generated images to run the stages in, which is removed at the end."""

    def __init__(self, num_images: int, dtype: str) -> None:
        """Raise SystemExit if the disk is too small for the archive, data/raw and shards of `dtype`."""
        self.folder = new_folder(FOLDER)
        self.num_images, self.dtype = num_images, dtype
        needed = num_images * (JPEG_BYTES + 3 * SIZE * SIZE * (1 + np.dtype(dtype).itemsize)) + SPARE_BYTES
        if (free := shutil.disk_usage(self.folder).free) < needed:
            sys.exit(f"{self.folder}: {num_images:,} images need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")

    def __enter__(self) -> Self:
        self._write_params()
        start = time.perf_counter()
        write_tar(self.folder / TAR_PATH, self.num_images)
        print(f"{self.num_images:,} images drawn in {time.perf_counter() - start:.0f} s", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)

    def _write_params(self) -> None:
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        params["dataset"] = "images"
        params["images"] |= {"source": str(TAR_PATH), "resize": RESIZE, "size": SIZE}
        params["audit"]["ignore"] = None
        params["normalize"] |= {"dtype": self.dtype, "samples_per_shard": samples_per_shard((3, SIZE, SIZE))}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def measure_bare() -> dict[str, float]:
    """Measure the memory of an interpreter with the imports of each stage, in MB."""
    peaks = {}
    for name, code in BARE.items():
        bare = Contender("bare", [sys.executable, "-c", code], new_folder(FOLDER))
        bare.run(counted=False)
        peaks[name] = bare.peak_mb
    return peaks


def measure_stage(name: str, folder: Path) -> dict[str, Any]:
    """Run a stage and its limit; exit if one of them fails."""
    ours = stage(name, folder)
    limit = Contender("limit", [sys.executable, "-m", "benchmarks.growth.limits", name], folder)
    ours.run(watch_interval=WATCH_INTERVAL)
    limit.run()
    shutil.rmtree(folder / limit.out)
    for it in (ours, limit):
        if it.failure:
            sys.exit(f"{name}: {it.name} failed: {it.failure}")
    print(f"{name}: {ours.seconds[0]:.1f} s, limit {limit.seconds[0]:.1f} s, {ours.peak_mb:,.0f} MB", flush=True)
    (seconds,), (cpu_seconds,), (limit_seconds,) = ours.seconds, ours.cpu_seconds, limit.seconds
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": ours.peak_mb, "limit_seconds": limit_seconds}


if __name__ == "__main__":
    main()
