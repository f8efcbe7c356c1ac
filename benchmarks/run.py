"""Measure each stage against its limit and its alternatives, and how its cost grows with the size of the data.

Writes RESULTS.md, results.json and scaling.svg next to this file. It uses data/raw if that exists, and otherwise
generated data of the size of CIFAR-10.
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

from pipeline.cli import RAW_DIR, REPORT_DIR, SHARDS_DIR, STATS_PATH
from pipeline.shards.writer import compute_content_hash, write_raw_set
from pipeline.sources import synthetic
from pipeline.stages.download import CHANNELS

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
# Each group runs in one process, taking turns. The groups need packages that can't be imported together.
EPOCHS = (
    ("index_select", "ours, preload", "ours, memory-mapped", "ffcv", "torchvision"),
    ("huggingface",),
    ("mds",),
    ("litdata",),
)
SCALED_JOBS = ("stats", "normalize")
TITLES = {
    "stats": "mean and std of the train split",
    "normalize": "60,000 images to normalized float32 on disk",
    "report": "verification of every value, search for duplicates, pictures",
}
INTRODUCTION = """\
Results of `make bench` on {dataset}.

Each run is a complete process. The contenders take turns for {rounds} rounds after one that is not counted, with a
warm page cache. Seconds are medians. They depend on the machine, so compare the ratios. "Own memory" is the peak of
anonymous memory of the main process, minus that of a bare interpreter with the stages' imports. Worker processes,
which LitData and FFCV use, are not counted. `limit` only reads (`stats`), or writes, hashes and syncs (`normalize`) the
same bytes; `hashed` also hashes them and imports Typer."""
BARE = {  # what the stages import
    "stats": "import pipeline.cli, pipeline.stages.stats",
    "normalize": "import pipeline.cli, pipeline.params, pipeline.stages.normalize",
    "report": "import jinja2, pipeline.cli, pipeline.params, pipeline.stages.report",
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
    """A command, and the seconds and megabytes of its own that each run took."""

    name: str
    command: list[str]
    folder: Path
    out: Path = Path("out")
    seconds: list[float] = field(default_factory=list)
    own_mb: list[float] = field(default_factory=list)  # anonymous memory, so without the page cache
    failure: str | None = None

    def run(self, *, counted: bool = True) -> None:
        if self.failure:
            return
        # Remove earlier output first, as DVC removes a stage's outs.
        out = self.folder / self.out
        out.unlink() if out.is_file() else shutil.rmtree(out, ignore_errors=True)
        os.sync()  # so that no contender waits for what another one left to be written
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
    """Make a folder to run stages in. Its data/raw is a link to `raw_dir`, or generated, `scale` times CIFAR-10."""
    folder = WORK_DIR / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copy("params.yaml", folder)
    if raw_dir:
        (folder / RAW_DIR).symlink_to(raw_dir)
    else:
        images, labels, classes = synthetic.generate({split: count * scale for split, count in CIFAR_SAMPLES.items()})
        content = compute_content_hash(images, labels)
        write_raw_set(folder / RAW_DIR, "synthetic", classes, CHANNELS, images, labels, content)
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
            "| contender | seconds | min to max | ratio to ours | own memory, MB |",
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
    lines += ["| reader | samples/s | ratio to the limit |", "|---|--:|--:|"]
    first_batch = epochs["first_batch_seconds"]
    rates = {name: statistics.median(rates) for name, rates in epochs["samples_per_second"].items()}
    for name, rate in rates.items():
        lines.append(f"| {name} | {rate:,.0f} | {rate / rates['index_select']:.3f} |")
    lines += [f"| {name} | did not run: {failure} | |" for name, failure in epochs["failures"].items()]
    lines += [
        "",
        "Without DataLoader workers, except that FFCV uses two of its own. The first five readers run in one",
        "process and take turns. The limit is `index_select` on a",
        f"tensor in RAM. Once torch is imported, memory-mapped shards give the first batch in {first_batch:.2f} s.",
    ]
    lines += ["", "## Growth with the data", "", "Generated data of 1, 2, 4 and 8 times the size of CIFAR-10.", ""]
    lines += ["| stage | size | seconds | ratio to 1x | own memory, MB |", "|---|--:|--:|--:|--:|"]
    for job, contenders in scaled.items():
        base = statistics.median(compared[job][-1].own_mb)
        for it in contenders:
            own = max(0.0, statistics.median(it.own_mb) - base)
            ratio = it.median / contenders[0].median
            lines.append(f"| `{job}` | {it.name} | {it.median:.2f} | {ratio:.2f} | {own:,.0f} |")
    return "\n".join([*lines, "", "![Seconds by size](scaling.svg)", ""])


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
    axes.set(xlabel="size, in multiples of CIFAR-10", ylabel="seconds per process", xlim=(0, None), ylim=(0, None))
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
