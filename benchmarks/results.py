"""RESULTS.md and scaling.svg from the measured numbers: `python -m benchmarks.results` renders results.json again."""

import importlib.metadata
import inspect
import json
import os
import platform
import statistics
import sys
from pathlib import Path

from benchmarks import decode, normalize, stats
from benchmarks.growth.results import cluster_lines, growth_lines
from benchmarks.rounds import SLOW_SECONDS

HERE = Path(__file__).parent
SCALES = (1, 2, 4, 8)
MAIN_JOBS = ("stats", "normalize")  # the others may be measured apart
MODULES = {"download": decode, "stats": stats, "normalize": normalize}  # of the alternatives
TITLES = {
    "download": "image files to pixels of one size",
    "stats": "mean and std of the train split",
    "audit": "figures of each image, search for near-duplicates",
    "normalize": "60,000 images to normalized float32 on disk",
    "report": "verification of every value, plots and pictures",
}
STAGE_NOTES = {
    "download": "On threads; hashes the files and the pixels, and writes samples.csv.",
    "stats": "Exact sums on threads; also hashes the bytes, and computes std per image, minimum and maximum.",
    "audit": "The complete stage, on threads; hashes what it reads. No alternative is measured.",
    "normalize": "On threads; hashes what it reads and what it writes.",
    "report": "The complete stage; no alternative is measured.",
}
INTRODUCTION = """\
Each run is a complete process with a warm page cache. The contenders take turns for {rounds} rounds, after one that is
not counted. Those that take longer than {slow_seconds:.0f} s stop after {slow_rounds}. Seconds are medians. They
depend on the machine, so compare the ratios. "CPU" is the CPU time of the process and all its children. Where it is
about as long as the seconds, the contender used one core.

"Own memory" is the peak of anonymous and shared memory (Pss_Anon and Pss_Shmem in /proc/PID/smaps_rollup), added up
over the process and all its children, minus that of an interpreter with the stage's imports. The page cache and mapped
files are not included. It is sampled in the run that is not counted."""
DOWNLOAD_NOTES = """\
With `dataset: images`. All contenders resize the short side to 256 by Pillow's bilinear filter, crop 224 x 224 and
store uint8 pixels, uncompressed; for the formats of other libraries, the loop of `limit` prepares the pixels. All but
`limit` wait until the disk has the bytes (`fsync`)."""
STATS_NOTES = """\
Only the stage and `hashed` hash what they read. The alternatives compute mean and std, and nothing else."""
NORMALIZE_NOTES = """\
All contenders wait until the disk has the bytes (`fsync`), as the stage does. The formats of other libraries are given
float32 values that numpy normalized, 1,000 images at a time, and zarr and safetensors a raw shard at a time."""
JOB_NOTES = {"download": [DOWNLOAD_NOTES, ""], "stats": [STATS_NOTES, ""], "normalize": [NORMALIZE_NOTES, ""]}
EPOCH_NOTES = """\
Float32 tensors in batches of 256, from torch's DataLoader with its default settings, except that FFCV and LitData have
loaders of their own and that workers persist from epoch to epoch. The limit is `index_select` on a tensor in RAM, with
torch's threads, which takes turns with the reader in the same process. Fast readers repeat the epoch for a second.
torchvision normalizes each image when it is read, while the others have stored normalized values. FFCV's workers are
threads. MDS and LitData prepare data on threads of their own even without workers."""
SINGLE_NOTES = """\
ConcatDataset and a user's wrapper (`__len__` and `__getitem__`) request samples one by one, as torch does from its own
TensorDataset. Without workers; the shards are memory-mapped."""
BUSY_NOTES = """\
Another process, an endless loop in Python, competes for one core. Ratios are to `index_select` on the quiet machine."""
PACKAGES = (
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "litdata",
    "mosaicml-streaming",
    "ffcv",
    "datasets",
    "webdataset",
    "zarr",
    "safetensors",
)
WORKERS, BUSY = ", 2 workers", ", one core busy"
SINGLE = ("TensorDataset", "ours in ConcatDataset", "ours in a wrapper")


def write_results(numbers: dict, folder: Path) -> None:
    """Write results.json and RESULTS.md."""
    (folder / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(render(numbers), encoding="utf-8")


def render(numbers: dict) -> str:
    rounds, slow_rounds = _rounds([it for job in MAIN_JOBS for it in numbers["compared"][job]])
    introduction = INTRODUCTION.format(rounds=rounds, slow_rounds=slow_rounds, slow_seconds=SLOW_SECONDS)
    lines = ["# Benchmarks", "", f"Results of `make bench` on {numbers['dataset']}.", "", introduction, ""]
    lines.append(numbers["machine"])
    for job in (job for job in TITLES if job in numbers["compared"]):
        lines += _compared_lines(job, numbers)
    lines += _epoch_lines(numbers["epochs"])
    lines += _scaled_lines(numbers["scaled"], numbers["bare_mb"])
    lines += ["", "![Seconds by size](scaling.svg)"]
    if "growth" in numbers:
        lines += growth_lines(numbers["growth"])
    if "cluster" in numbers:
        lines += cluster_lines(numbers["cluster"])
    return "\n".join([*lines, ""])


def _compared_lines(job: str, numbers: dict) -> list[str]:
    contenders = numbers["compared"][job]
    notes = JOB_NOTES.get(job, [])
    columns = {"ratio to ours": lambda it: f"{_seconds(it) / _seconds(contenders[0]):.2f}"}
    if job == "download":
        notes, count = [*notes, _images_note(numbers["images"]), ""], numbers["images"]["count"]
        limits = [_seconds(it) for it in contenders if it["name"] == "limit" and it["seconds"]]
        columns = {
            "images/s": lambda it: f"{count / _seconds(it):,.0f}",
            "ratio to the limit": lambda it: f"{limits[0] / _seconds(it):.2f}" if limits else "",
        }
    head = ["contender", "what it does", "seconds", "min to max", *columns, "CPU, s", "own memory, MB"]
    notes = [*notes, *_apart_notes(job, numbers)]
    lines = ["", f"## `{job}`: {TITLES[job]}", "", *notes, _row(head), f"|---|---{'|--:' * (len(head) - 2)}|"]
    for it in contenders:
        if it["failure"]:
            lines.append(f"| {it['name']} | did not run: {it['failure']} |{' |' * (len(head) - 2)}")
            continue
        note = STAGE_NOTES[job] if it["name"] == "ours" else _note(job, it["name"])
        spread = f"{min(it['seconds']):.2f} to {max(it['seconds']):.2f}"
        cells = [it["name"], note, f"{_seconds(it):.2f}", spread, *(column(it) for column in columns.values())]
        cpu = statistics.median(it["cpu_seconds"])
        lines.append(_row([*cells, f"{cpu:.2f}", _own_mb(it, numbers["bare_mb"][job])]))
    return lines


def _images_note(images: dict) -> str:
    origin = f"from the folder `{images['name']}`" if images["name"] else "generated"
    return f"The images: {images['count']:,} JPEG files of {images['megabytes']:.0f} MB, {origin}."


def _apart_notes(job: str, numbers: dict) -> list[str]:
    """Say so if a stage was measured apart from MAIN_JOBS, on another machine or in other rounds."""
    machines = {"download": numbers["images"]["machine"]} | numbers.get("machines", {})
    machine = machines.get(job, numbers["machine"])
    rounds, slow_rounds = _rounds(numbers["compared"][job])
    of_rest = _rounds([it for main_job in MAIN_JOBS for it in numbers["compared"][main_job]])
    if machine == numbers["machine"] and {rounds, slow_rounds} <= {*of_rest}:
        return []
    counts = f"{rounds} rounds ({slow_rounds} of slow contenders)"
    return [f"Measured apart from the rest, in {counts}, on {machine}", ""]


def _rounds(contenders: list[dict]) -> tuple[int, int]:
    """Return how many rounds were measured, and how many of slow contenders."""
    counts = [len(it["seconds"]) for it in contenders if it["seconds"]]
    return max(counts), min(counts)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _note(job: str, name: str) -> str:
    """Return the first line of a contender's docstring."""
    return inspect.getdoc(getattr(MODULES[job], name)).splitlines()[0]


def _seconds(contender: dict) -> float:
    return statistics.median(contender["seconds"])


def _own_mb(contender: dict, bare_mb: float) -> str:
    return f"{max(0.0, contender['peak_mb'] - bare_mb):,.0f}"


def _epoch_lines(groups: list[dict]) -> list[str]:
    medians = [{name: statistics.median(it) for name, it in group["samples_per_second"].items()} for group in groups]
    first = medians[0]
    epochs = [(name, group) for group in medians for name in group if name not in SINGLE and not name.endswith(BUSY)]
    rows = [
        (name, group[name], group["index_select"]) for name, group in epochs if group is first or name != "index_select"
    ]
    lines = ["", "## A shuffled epoch of the train split", "", EPOCH_NOTES, ""]
    lines += ["| reader | workers | samples/s | ratio to the limit |", "|---|--:|--:|--:|"]
    for name, rate, limit in rows:
        workers = 2 if name.endswith(WORKERS) else 0
        lines.append(f"| {name.removesuffix(WORKERS)} | {workers} | {rate:,.0f} | {rate / limit:.3f} |")
    for group in groups:
        lines += [f"| {name} | | did not run: {failure} | |" for name, failure in group["failures"].items()]
    lines += [
        "",
        f"After the imports, memory-mapped shards give the first batch in {groups[0]['first_batch_seconds']:.2f} s.",
    ]
    lines += ["", "### Sample by sample", "", SINGLE_NOTES, ""]
    lines += ["| dataset | samples/s | ratio to TensorDataset |", "|---|--:|--:|"]
    for name in SINGLE:
        lines.append(f"| {name} | {first[name]:,.0f} | {first[name] / first['TensorDataset']:.3f} |")
    lines += ["", "### With one core busy", "", BUSY_NOTES, ""]
    lines += ["| reader | samples/s | ratio to the limit |", "|---|--:|--:|"]
    for name in (name for name in first if name.endswith(BUSY)):
        lines.append(f"| {name.removesuffix(BUSY)} | {first[name]:,.0f} | {first[name] / first['index_select']:.3f} |")
    return lines


def _scaled_lines(scaled: dict[str, list[dict]], bare_mb: dict[str, float]) -> list[str]:
    sizes = f"{', '.join(map(str, SCALES[:-1]))} and {SCALES[-1]}"
    lines = ["", "## Growth with the data", "", f"Generated data of {sizes} times the size of CIFAR-10.", ""]
    lines += ["| stage | size | seconds | ratio to 1x | own memory, MB |", "|---|--:|--:|--:|--:|"]
    for job, contenders in scaled.items():
        for it in contenders:
            ratio = _seconds(it) / _seconds(contenders[0])
            own = _own_mb(it, bare_mb[job])
            lines.append(f"| `{job}` | {it['name']} | {_seconds(it):.2f} | {ratio:.2f} | {own} |")
    return lines


def describe_machine(packages: tuple[str, ...] = PACKAGES) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    system = f"{platform.system()}, {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{system}, {versions}"


def _version(name: str) -> str:
    path = [*sys.path, os.environ.get("HUGGINGFACE_DIR", "")]
    found = [it.version for it in importlib.metadata.distributions(name=name, path=path)]
    return found[0] if found else "not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def plot(numbers: dict, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for job, contenders in numbers["scaled"].items():
        axes.plot(SCALES, [_seconds(it) for it in contenders], marker="o", label=job)
    axes.set(xlabel="size, in multiples of CIFAR-10", ylabel="seconds per process", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    write_results(json.loads((HERE / "results.json").read_bytes()), HERE)
