"""Measure each stage against its limit and its alternatives, and how its cost grows with the size of the data.

Writes RESULTS.md, results.json and scaling.svg next to this file. It uses data/raw if that exists, and otherwise
generated data of the size of CIFAR-10. Stage `download` decodes the images of the folder that BENCH_IMAGES names, which
has class folders in folders for train and other splits, and otherwise generated ones.

`python -m benchmarks.run STAGE...` measures these stages alone, and keeps the other results.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.decode import RESIZE, SIZE, generate_images
from benchmarks.inputs import IMAGES_DIR
from benchmarks.memory import INTERVAL, watch_peak
from benchmarks.results import MODULES, SCALES, describe_machine, plot, write_results
from benchmarks.rounds import ROUNDS, is_due
from pipeline.cli import AUDIT_DIR, RAW_DIR, REPORT_DIR, SHARDS_DIR, STATS_PATH
from pipeline.sources import synthetic
from pipeline.sources.cifar import CHANNELS
from pipeline.sources.source import ArraySamples
from tests.helpers.shard_sets import write_array_set

HERE = Path(__file__).parent
WORK_DIR = Path("build/bench").absolute()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent.absolute())}
CIFAR_SAMPLES = {"train": 50_000, "test": 10_000}

STAGE_OUTS = {
    "download": RAW_DIR, "stats": STATS_PATH, "audit": AUDIT_DIR, "normalize": SHARDS_DIR, "report": REPORT_DIR
}  # fmt: skip
# Functions of the modules in MODULES.
ALTERNATIVES = {
    "download": ("limit", "torchvision", "huggingface", "litdata", "mds", "ffcv"),
    "stats": (
        *("limit", "hashed", "bincount", "bincount_pairs", "torch", "numpy", "dataloader", "dataloader_workers"),
        "tutorial",
    ),
    "audit": (),
    "normalize": (
        *("limit", "safetensors", "zarr", "huggingface", "ffcv", "mds", "webdataset", "litdata", "torchvision"),
    ),
    "report": (),
}
# Each group runs in one process, taking turns. Some of them need packages that can't be imported together.
EPOCHS = (
    (
        *("index_select", "ours, preload", "ours, memory-mapped", "ours, memory-mapped, 2 workers"),
        *("TensorDataset", "ours in ConcatDataset", "ours in a wrapper"),
        *("index_select, one core busy", "TensorDataset, one core busy"),
        *("ours, preload, one core busy", "ours, memory-mapped, one core busy"),
    ),
    ("index_select", "ffcv, 2 workers"),
    ("index_select", "litdata", "litdata, 2 workers"),
    ("index_select", "torchvision", "torchvision, 2 workers"),
    ("index_select", "huggingface", "huggingface, 2 workers"),
    ("index_select", "mds", "mds, 2 workers"),
)
KEPT = ("growth", "cluster")  # measured by benchmarks/growth
EPOCHS_TIMEOUT = 600  # seconds for a group
SCALED_JOBS = ("stats", "normalize")
BARE = {  # what the stages import
    "download": "import pipeline.cli, pipeline.params, pipeline.stages.download",
    "stats": "import pipeline.cli, pipeline.stages.stats",
    "audit": "import pipeline.cli, pipeline.params, pipeline.stages.audit",
    "normalize": "import pipeline.cli, pipeline.params, pipeline.stages.normalize",
    "report": "import jinja2, pipeline.cli, pipeline.params, pipeline.stages.report",
}


@dataclass
class Contender:
    """A command, and what its runs took."""

    name: str
    command: list[str]
    folder: Path
    out: Path = Path("out")
    env: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # of the process and its descendants
    peak_mb: float = 0.0  # of the run that is not counted, because watching the memory slows it down
    failure: str | None = None

    def run(self, *, counted: bool = True, watch_interval: float = 0) -> None:
        """Run once. The memory is watched every `watch_interval` seconds, and in runs that are not counted."""
        # Remove earlier output first, as DVC removes a stage's outs.
        out = self.folder / self.out
        out.unlink() if out.is_file() else shutil.rmtree(out, ignore_errors=True)
        os.sync()  # so that no contender waits for what another one left to be written
        start, cpu_start = time.perf_counter(), _cpu_seconds_of_children()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
            subprocess.Popen(
                self.command, cwd=self.folder, env=ENVIRONMENT | self.env, stdout=subprocess.DEVNULL, stderr=stderr
            ) as process,
        ):
            if counted and not watch_interval:
                process.wait()
            else:
                self.peak_mb = watch_peak(process, watch_interval or INTERVAL)
            seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds_of_children() - cpu_start
            stderr.seek(0)
            errors = stderr.read().strip().splitlines()
        if process.returncode:
            self.failure = errors[-1][:200] if errors else f"exit code {process.returncode}"
        elif counted:
            self.seconds.append(seconds)
            self.cpu_seconds.append(cpu_seconds)

    def numbers(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name not in {"command", "folder", "out", "env"}}


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(job: str, contenders: list[Contender]) -> None:
    for number in range(ROUNDS + 1):
        for it in contenders:
            if it.failure or not is_due(number, it.seconds[-1] if it.seconds else 0):
                continue
            it.run(counted=number > 0)
            outcome = it.failure or (f"{it.seconds[-1]:.2f} s" if it.seconds else f"{it.peak_mb:,.0f} MB")
            print(f"{job} {number}/{ROUNDS} {it.name}: {outcome}", flush=True)
        if contenders[0].failure:
            sys.exit(f"{job}: the stage failed: {contenders[0].failure}")


def new_folder(name: str) -> Path:
    folder = WORK_DIR / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    return folder


def make_folder(name: str, raw_dir: Path | None, scale: int = 1) -> Path:
    """Make a folder to run stages in. Its data/raw is a link to `raw_dir`, or generated, `scale` times CIFAR-10."""
    folder = new_folder(name)
    for path in ("params.yaml", "data/not_duplicates.csv"):  # which the params name
        shutil.copy(path, folder / path)
    if raw_dir:
        (folder / RAW_DIR).symlink_to(raw_dir)
    else:
        print(f"generating {scale} x {sum(CIFAR_SAMPLES.values()):,} images", flush=True)
        images, labels, classes = synthetic.generate({split: count * scale for split, count in CIFAR_SAMPLES.items()})
        write_array_set(folder / RAW_DIR, "synthetic", ArraySamples(classes, CHANNELS, images, labels))
    return folder


def make_images_folder() -> tuple[Path, dict[str, object]]:
    """Make a folder to run `download` in. Return it, and what RESULTS.md says about the images."""
    folder = new_folder("images")
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["dataset"] = "images"
    params["images"] |= {"source": str(IMAGES_DIR), "resize": RESIZE, "size": SIZE, "orientation": "ignore"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    if source := os.environ.get("BENCH_IMAGES"):
        (folder / IMAGES_DIR).symlink_to(Path(source).absolute())
    else:
        print("generating images", flush=True)
        generate_images(folder / IMAGES_DIR)
    files = [path for path in (folder / IMAGES_DIR).glob("*/*/*") if path.is_file()]
    facts = {"name": Path(source).name if source else None, "count": len(files), "machine": describe_machine()}
    return folder, facts | {"megabytes": sum(path.stat().st_size for path in files) / 1e6}


def stage(name: str, folder: Path, title: str = "ours") -> Contender:
    return Contender(title, [sys.executable, "-m", "pipeline", name], folder, STAGE_OUTS[name])


def compare(job: str, folder: Path) -> tuple[list[dict], float]:
    """Return what a stage and its alternatives took, and the memory of the stage's imports in MB."""
    module = MODULES[job].__name__ if ALTERNATIVES[job] else ""
    rivals = [Contender(name, [sys.executable, "-m", module, name], folder) for name in ALTERNATIVES[job]]
    contenders = [stage(job, folder), *rivals]
    measure(job, contenders)
    bare = Contender("bare", [sys.executable, "-c", BARE[job]], folder)
    bare.run(counted=False)
    return [it.numbers() for it in contenders], bare.peak_mb


def read_epochs(folder: Path) -> list[dict]:
    """Return what benchmarks/epoch.py measured, for each group."""
    measured = []
    for names in EPOCHS:
        shutil.rmtree(folder / "out", ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.epoch", *names]
        try:
            done = subprocess.run(
                command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True, timeout=EPOCHS_TIMEOUT
            )
        except subprocess.SubprocessError as error:
            measured.append({"samples_per_second": {}, "failures": dict.fromkeys(names, type(error).__name__)})
        else:
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    return measured


def scale_up() -> dict[str, list[Contender]]:
    folders = {scale: make_folder(f"x{scale}", None, scale) for scale in SCALES}
    scaled = {job: [stage(job, folder, f"{scale}x") for scale, folder in folders.items()] for job in SCALED_JOBS}
    for job, contenders in scaled.items():
        measure(job, contenders)
    for folder in folders.values():
        shutil.rmtree(folder)
    return scaled


def add_compared(job: str, folder: Path, numbers: dict[str, Any]) -> None:
    numbers["compared"][job], numbers["bare_mb"][job] = compare(job, folder)


def measure_arrays(jobs: list[str], numbers: dict[str, Any]) -> None:
    """Add what `jobs` took, except `download`, and if these are all stages, what else RESULTS.md says."""
    raw_dir = RAW_DIR.absolute() if (RAW_DIR / "manifest.json").exists() else None
    folder = make_folder("compare", raw_dir)
    for job in (job for job in STAGE_OUTS if job != "download"):
        if job in jobs:
            add_compared(job, folder, numbers)
            numbers.setdefault("machines", {})[job] = describe_machine()
        else:
            stage(job, folder).run(counted=False)  # later stages read its output
    if jobs == [*STAGE_OUTS]:
        manifest = json.loads((raw_dir / "manifest.json").read_bytes()) if raw_dir else {"dataset": "generated data"}
        numbers |= {"dataset": manifest["dataset"], "machine": describe_machine(), "epochs": read_epochs(folder)}
        scaled = scale_up()
        numbers["scaled"] = {job: [it.numbers() for it in contenders] for job, contenders in scaled.items()}
    shutil.rmtree(folder)


def main() -> None:
    start = time.perf_counter()
    jobs = sys.argv[1:] or [*STAGE_OUTS]
    if not {*jobs} <= {*STAGE_OUTS}:
        sys.exit(f"usage: python -m benchmarks.run [{'|'.join(STAGE_OUTS)}]...")
    path = HERE / "results.json"
    numbers = json.loads(path.read_bytes())
    if not sys.argv[1:]:
        numbers = {"compared": {}, "bare_mb": {}} | {name: numbers[name] for name in KEPT if name in numbers}
    if {*jobs} - {"download"}:
        measure_arrays(jobs, numbers)
    if "download" in jobs:
        folder, numbers["images"] = make_images_folder()
        add_compared("download", folder, numbers)
        shutil.rmtree(folder)
    write_results(numbers, HERE)
    plot(numbers, HERE / "scaling.svg")
    print(f"{HERE / 'RESULTS.md'}: written after {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
