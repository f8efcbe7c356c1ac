"""What RESULTS.md and growth.svg say about the growth, and the extrapolation."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import pictures
from benchmarks.growth.limits import LIMITS

IMAGENET = 1_281_167  # images of its train split
QUADRATIC = {"audit"}  # stages that compare each image with each other one
NOTES = """\
All stages, one after the other, each once, as a process of its own, on {sizes} generated JPEGs in one .tar, at 224
pixels. `normalize` stores uint8, in shards of the size of raw ones. The limit of each stage runs after it, in the same
folder:

{limits}

The machine has {memory:.0f} GB of memory; what its page cache can't hold is read from the disk. Own memory is sampled
every 0.05 s. The images:"""
EXTRAPOLATION_NOTES = """\
Assumed: the same disk and two cores, and pictures like these; each stage takes a constant plus a time per image, fitted
by least squares of relative errors, and `audit` a time per image plus a time per pair of images. So many images were
not run."""


CLUSTER_NOTES = """\
With {images:,} of these images, and `normalize` to float32: two single-threaded workers on this machine, which are
running before, and two threads. Seconds are medians of {rounds} runs, taking turns. Memory is the peak of anonymous and
shared memory, imports included, of the larger worker and of the process that runs the stage."""


def growth_lines(growth: dict[str, Any]) -> list[str]:
    """Render the sections on the growth as lines of Markdown."""
    sizes = growth["sizes"]
    stages = [*sizes[0]["stages"]]
    counts = ", ".join(f"{size['images']:,}" for size in sizes)
    limits = "\n".join(f"- `{stage}`: {inspect.getdoc(LIMITS[stage])}" for stage in stages)
    notes = NOTES.format(sizes=counts, limits=limits, memory=growth["memory_gb"])
    drawn = inspect.getdoc(pictures)
    lines = ["", f"## Growth to {sizes[-1]['images']:,} images of 224 pixels", "", notes, "", str(drawn), ""]
    lines += [f"Measured apart from the rest, on {growth['machine']}", ""]
    lines += ["| stage | images | seconds | images/s | times its limit | CPU, s | own memory, MB |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    lines += [_row(stage, size, growth["bare_mb"]) for stage in stages for size in sizes]
    lines += ["", "![Seconds by number of images](growth.svg)", ""]
    lines += [f"### Extrapolated to {IMAGENET:,} images", "", EXTRAPOLATION_NOTES, ""]
    lines += ["| stage | hours | images/s | own memory grows per image, bytes |", "|---|--:|--:|--:|"]
    for stage in stages:
        seconds = extrapolate(sizes, stage, IMAGENET)
        lines.append(
            f"| `{stage}` | {seconds / 3600:.2f} | {IMAGENET / seconds:,.0f} | {_growth_bytes(sizes, stage)} |"
        )
    return lines


def cluster_lines(measured: dict[str, Any]) -> list[str]:
    """Render the section on workers of a cluster as lines of Markdown."""
    lines = ["", "## Two workers of a cluster", "", CLUSTER_NOTES.format(**measured), ""]
    lines += [f"Measured apart from the rest, on {measured['machine']}", ""]
    lines += ["| stage | threads, s | workers, s | throughput, workers to threads | worker, MB | client, MB |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for stage, it in measured["stages"].items():
        cells = [f"`{stage}`", f"{it['threads_seconds']:.1f}", f"{it['workers_seconds']:.1f}"]
        cells += [f"{it['threads_seconds'] / it['workers_seconds']:.2f}"]
        cells += [f"{it['worker_mb']:,.0f}", f"{it['client_mb']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def extrapolate(sizes: list[dict[str, Any]], stage: str, num_images: int) -> float:
    """Estimate the seconds of a stage for `num_images`."""
    counts = np.array([size["images"] for size in sizes], float)
    seconds = np.array([size["stages"][stage]["seconds"] for size in sizes])
    powers = [1, 2 if stage in QUADRATIC else 0][: len(sizes)]
    while True:
        terms = counts[:, None] ** powers / seconds[:, None]
        factors = np.linalg.lstsq(terms, np.ones(len(counts)))[0]
        if (factors >= 0).all():
            return float(factors @ np.array([float(num_images) ** power for power in powers]))
        powers = [power for power, factor in zip(powers, factors, strict=True) if factor >= 0]


def plot_growth(growth: dict[str, Any], path: Path) -> None:
    from matplotlib import pyplot as plt

    sizes = growth["sizes"]
    counts = [size["images"] for size in sizes]
    figure, axes = plt.subplots(figsize=(6, 4))
    for stage in sizes[0]["stages"]:
        seconds = [size["stages"][stage]["seconds"] for size in sizes]
        (line,) = axes.plot(counts, seconds, marker="o", label=stage)
        ends = [counts[-1], IMAGENET]
        axes.plot(ends, [seconds[-1], extrapolate(sizes, stage, IMAGENET)], linestyle=":", color=line.get_color())
    axes.set(xlabel="images (dotted: extrapolated)", ylabel="seconds per process", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def _row(stage: str, size: dict[str, Any], bare_mb: dict[str, float]) -> str:
    it, count = size["stages"][stage], size["images"]
    own_mb = max(0.0, it["peak_mb"] - bare_mb[stage])
    cells = [f"`{stage}`", f"{count:,}", f"{it['seconds']:.1f}", f"{count / it['seconds']:,.0f}"]
    cells += [f"{it['seconds'] / it['limit_seconds']:.2f}", f"{it['cpu_seconds']:.1f}", f"{own_mb:,.0f}"]
    return f"| {' | '.join(cells)} |"


def _growth_bytes(sizes: list[dict[str, Any]], stage: str) -> str:
    """Render by how many bytes per image the peak memory of the largest size exceeds that of the smallest."""
    first, last = sizes[0], sizes[-1]
    if first is last:
        return ""
    megabytes = last["stages"][stage]["peak_mb"] - first["stages"][stage]["peak_mb"]
    return f"{max(0.0, megabytes) * 2**20 / (last['images'] - first['images']):,.0f}"
