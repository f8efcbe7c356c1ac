"""Measure each stage beside its limit and its alternatives: whole processes, in turn, and how cost grows with the data.

Writes RESULTS.md, results.json and scaling.svg beside this file. The data are those of data/raw where they are there,
else generated ones of the size of CIFAR-10.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import synthetic
from pipeline.cli import RAW_DIR, REPORT_DIR, SHARDS_DIR, STATS_PATH
from pipeline.stages.download import write_raw
from shardset.shards import hash_content

HERE = Path(__file__).parent
WORK_DIR = Path("build/bench").absolute()
ROUNDS = 5
CIFAR_SAMPLES = {"train": 50_000, "test": 10_000}
SCALES = (1, 2, 4, 8)

OUTS = {"stats": STATS_PATH, "normalize": SHARDS_DIR, "report": REPORT_DIR}
JOBS = {
    "stats": ("ours", "limit", "hashed", "tutorial", "dataloader", "numpy", "torch"),
    "normalize": (
        *("ours", "limit", "torchvision", "litdata", "mds", "ffcv", "huggingface", "webdataset", "zarr", "safetensors"),
    ),
    "report": ("ours",),
}
# Those of one process, in turn; the others need packages that don't go together.
EPOCHS = (
    ("index_select", "ours, preload", "ours, memory-mapped", "ffcv", "torchvision"),
    ("huggingface",),
    ("mds",),
    ("litdata",),
)
SCALED_JOBS = ("stats", "normalize")
TITLES = {
    "stats": "Mean and std of the train split",
    "normalize": "60,000 images to normalized float32 on disk",
    "report": "Checks of every value, the search for duplicates, pictures",
}
INTRODUCTION = """\
Of `make bench` on {dataset}: whole processes, in turn, {rounds} rounds after one that is not counted, page cache warm.
Seconds are medians and depend on the machine; the ratios are what to look at. Own memory is anonymous, at its peak,
over that of the bare interpreter with the stages' imports."""
BARE = {  # what the stages import
    "stats": "import pipeline.cli, pipeline.stats",
    "normalize": "import pipeline.cli, pipeline.normalize, pipeline.params",
    "report": "import jinja2, pipeline.cli, pipeline.params, pipeline.pictures, pipeline.report",
}
PACKAGES = (
    "numpy",
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


@dataclass
class Contender:
    """A command and what each of its runs took: seconds, and megabytes of its own."""

    name: str
    command: list[str]
    folder: Path
    out: Path = Path("out")
    seconds: list[float] = field(default_factory=list)
    own_mb: list[float] = field(default_factory=list)  # anonymous: not the page cache's
    failure: str | None = None

    def run(self, *, counted: bool = True) -> None:
        if self.failure:
            return
        # What was written before is removed first, as DVC removes a stage's outs.
        out = self.folder / self.out
        out.unlink() if out.is_file() else shutil.rmtree(out, ignore_errors=True)
        os.sync()  # no one waits for what another has left to the disk
        start = time.perf_counter()
        with (
            tempfile.TemporaryFile("w+") as stderr,
            subprocess.Popen(self.command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=stderr) as process,
        ):
            own_mb = 0.0
            while process.poll() is None:
                own_mb = max(own_mb, _anonymous_mb(process.pid))
                time.sleep(0.002)
            seconds = time.perf_counter() - start
            stderr.seek(0)
            errors = stderr.read().strip().splitlines()
        if process.returncode:
            self.failure = errors[-1][:200] if errors else f"exit code {process.returncode}"
        elif counted:
            self.seconds.append(seconds)
            self.own_mb.append(own_mb)

    def numbers(self) -> dict[str, object]:
        return {"name": self.name, "seconds": self.seconds, "own_mb": self.own_mb, "failure": self.failure}

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _anonymous_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def measure(contenders: list[Contender], rounds: int) -> None:
    for number in range(rounds + 1):
        for contender in contenders:
            contender.run(counted=number > 0)
            if contender.seconds:
                print(f"{number}/{rounds} {contender.name}: {contender.seconds[-1]:.2f} s", flush=True)


def make_folder(name: str, raw_dir: Path | None, scale: int = 1) -> Path:
    """Make a folder to run stages in, whose data/raw is `raw_dir`, or generated in so many times CIFAR-10's size."""
    folder = WORK_DIR / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copy("params.yaml", folder)
    if raw_dir:
        (folder / RAW_DIR).symlink_to(raw_dir)
    else:
        splits = synthetic.generate({split: count * scale for split, count in CIFAR_SAMPLES.items()})
        content = hash_content([splits["train"], splits["test"]])
        write_raw(folder / RAW_DIR, "synthetic", synthetic.CLASSES, content, splits)
    return folder


def stage(name: str, folder: Path, title: str = "ours") -> Contender:
    return Contender(title, [sys.executable, "-m", "pipeline", name], folder, OUTS[name])


def bare(job: str, folder: Path) -> Contender:
    return Contender("bare", [sys.executable, "-c", BARE[job]], folder)


def compare(folder: Path) -> dict[str, list[Contender]]:
    contenders_path = str((HERE / "contenders.py").absolute())
    results = {}
    for job, names in JOBS.items():
        contenders = [
            stage(job, folder)
            if name == "ours"
            else Contender(name, [sys.executable, contenders_path, job, name], folder)
            for name in names
        ]
        measure([*contenders, bare_one := bare(job, folder)], ROUNDS)
        results[job] = [*contenders, bare_one]
    return results


def read_epochs(folder: Path) -> dict[str, dict]:
    rates, failures, first_batch = {}, {}, []
    for names in EPOCHS:
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        command = [sys.executable, str((HERE / "epoch.py").absolute()), str(ROUNDS), *names]
        try:
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True, timeout=600)
        except subprocess.SubprocessError as error:
            failures |= dict.fromkeys(names, type(error).__name__)
            continue
        measured = json.loads(done.stdout.splitlines()[-1])
        rates |= measured["samples_per_second"]
        failures |= measured["failures"]
        first_batch.append(measured["first_batch_seconds"])
    return {"samples_per_second": rates, "failures": failures, "first_batch_seconds": statistics.median(first_batch)}


def scale_up() -> dict[str, list[Contender]]:
    folders = {scale: make_folder(f"x{scale}", None, scale) for scale in SCALES}
    results = {}
    for job in SCALED_JOBS:
        results[job] = [stage(job, folder, f"{scale}x") for scale, folder in folders.items()]
        measure(results[job], ROUNDS)
    for folder in folders.values():
        shutil.rmtree(folder)
    return results


def render(
    dataset: str, compared: dict[str, list[Contender]], epochs: dict[str, dict], scaled: dict[str, list[Contender]]
) -> str:
    lines = [
        "# Benchmarks",
        "",
        INTRODUCTION.format(dataset=dataset, rounds=ROUNDS),
        "",
        f"{platform.system()}, {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    ]
    for job, contenders in compared.items():
        ours, bare_one = contenders[0], contenders[-1]
        base = statistics.median(bare_one.own_mb)
        lines += [
            "",
            f"## `{job}`: {TITLES[job]}",
            "",
            "| | seconds | min to max | over ours | own memory, MB |",
            "|---|--:|--:|--:|--:|",
        ]
        for it in contenders[:-1]:
            if it.failure:
                lines.append(f"| {it.name} | did not run: {it.failure} | | | |")
            else:
                spread = f"{min(it.seconds):.2f} to {max(it.seconds):.2f}"
                own = max(0.0, statistics.median(it.own_mb) - base)
                lines.append(f"| {it.name} | {it.median:.2f} | {spread} | {it.median / ours.median:.2f} | {own:,.0f} |")
    lines += ["", "## One shuffled epoch of the train split, float32 tensors in batches of 256", ""]
    lines += ["| | samples/s | over the limit |", "|---|--:|--:|"]
    rates = {name: statistics.median(rates) for name, rates in epochs["samples_per_second"].items()}
    for name, rate in rates.items():
        lines.append(f"| {name} | {rate:,.0f} | {rate / rates['index_select']:.3f} |")
    lines += [f"| {name} | did not run: {failure} | |" for name, failure in epochs["failures"].items()]
    lines += [
        "",
        "In turn, without workers, five of them in one process. The limit is `index_select` on a tensor in RAM. Once",
        f"torch is imported, memory-mapped shards give the first batch in {epochs['first_batch_seconds']:.2f} s.",
    ]
    lines += ["", "## As the data grow", "", "Generated sets of 1, 2, 4 and 8 times the size of CIFAR-10.", ""]
    lines += ["| | size | seconds | over 1x | own memory, MB |", "|---|--:|--:|--:|--:|"]
    for job, contenders in scaled.items():
        base = statistics.median(compared[job][-1].own_mb)
        for it in contenders:
            own = max(0.0, statistics.median(it.own_mb) - base)
            ratio = it.median / contenders[0].median
            lines.append(f"| `{job}` | {it.name} | {it.median:.2f} | {ratio:.2f} | {own:,.0f} |")
    return "\n".join([*lines, "", "![Seconds over size](scaling.svg)", ""])


def _version(name: str) -> str:
    path = [*sys.path, os.environ.get("HUGGINGFACE_DIR", "")]
    found = [it.version for it in importlib.metadata.distributions(name=name, path=path)]
    return found[0] if found else "not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def plot(scaled: dict[str, list[Contender]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for job, contenders in scaled.items():
        axes.plot(SCALES, [it.median for it in contenders], marker="o", label=job)
    axes.set(xlabel="size, in CIFAR-10s", ylabel="seconds, whole process", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    raw_dir = RAW_DIR.absolute() if (RAW_DIR / "manifest.json").exists() else None
    folder = make_folder("compare", raw_dir)
    compared = compare(folder)
    epochs = read_epochs(folder)
    shutil.rmtree(folder)
    scaled = scale_up()
    dataset = json.loads((raw_dir / "manifest.json").read_bytes())["dataset"] if raw_dir else "generated data"
    raw_numbers = {"epochs": epochs} | {
        kind: {job: [it.numbers() for it in contenders] for job, contenders in of.items()}
        for kind, of in (("compared", compared), ("scaled", scaled))
    }
    (HERE / "results.json").write_text(json.dumps(raw_numbers, indent=1) + "\n", encoding="utf-8")
    (HERE / "RESULTS.md").write_text(render(dataset, compared, epochs, scaled), encoding="utf-8")
    plot(scaled, HERE / "scaling.svg")


if __name__ == "__main__":
    main()
