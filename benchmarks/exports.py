"""Export a set of pixels, and read each sample back with the library of the format.

`python -m benchmarks.exports DIR` does so in every format and prints a table. `python -m benchmarks.exports FORMAT
DIR...` compares all samples of sets in one format and prints figures for each set as a line of JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.export.card import HUB_SPLITS
from pipeline.export.formats import Format
from shardset import open_shards
from shardset.shards import ShardSet


def main() -> None:
    if sys.argv[1] in {*Format}:
        for path in sys.argv[2:]:
            with tempfile.TemporaryDirectory(dir="build" if Path("build").is_dir() else None) as folder:
                print(json.dumps(measure(Path(path), Path(folder) / "export", sys.argv[1])), flush=True)
    else:
        print_table(Path(sys.argv[1]))


def print_table(raw_dir: Path) -> None:
    raw = open_shards(raw_dir)
    print(f"{raw.manifest.num_samples:,} images, {raw.manifest.num_bytes / 1e6:,.0f} MB as .npy\n")
    print("| format | size, MB | of the .npy set | files | export, s | read back, s |\n|---|--:|--:|--:|--:|--:|")
    for name in Format:
        command = [sys.executable, "-m", "benchmarks.exports", name, str(raw_dir)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        share = row["bytes"] / raw.manifest.num_bytes
        print(
            f"| {name} | {row['bytes'] / 1e6:,.0f} | {share:.0%} | {row['files']} | {row['export_seconds']:.0f} | "
            f"{row['read_seconds']:.0f} |",
            flush=True,
        )


def measure(raw_dir: Path, target_dir: Path, name: str) -> dict:
    """Export a set, start of the process included, and compare it with what the library reads."""
    start = time.perf_counter()
    command = ["-m", "pipeline", "export", str(raw_dir), str(target_dir), "--format", name]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    exported = time.perf_counter()
    num_samples = compare(open_shards(raw_dir), target_dir, name)
    files = [path for path in target_dir.rglob("*") if path.is_file()]
    return {
        "format": name,
        "samples": num_samples,
        "bytes": sum(path.stat().st_size for path in files),
        "files": len(files),
        "export_seconds": exported - start,
        "read_seconds": time.perf_counter() - exported,
    }


def compare(raw: ShardSet, target_dir: Path, name: str) -> int:
    """Compare an export with its set, sample by sample, and return their number. Raises ValueError at a difference."""
    grey = raw.manifest.image_shape[0] == 1
    webdataset = partial(read_webdataset, image_mode="pill" if grey else "pil")
    read = {"parquet": read_parquet, "webdataset": webdataset, "mds": read_mds}[name]
    num_samples = 0
    for split in raw.manifest.splits:
        classes, samples = read(target_dir, split)
        if tuple(classes) != raw.manifest.classes:
            raise ValueError(f"{split}: class names: {classes}")
        for index, (expected, found) in enumerate(zip(read_set(raw, split), samples, strict=True)):
            if not np.array_equal(expected[0], found[0]) or expected[1:] != found[1:]:
                raise ValueError(f"{split}: sample {index}: expected {expected[1:]}, got {found[1:]}, or other pixels")
            num_samples += 1
    return num_samples


def read_set(raw: ShardSet, split: str) -> Iterator[tuple]:
    """Yield pixels, (H, W, 3) or (H, W), label and source of each sample."""
    images = chain.from_iterable(raw.images(shard) for shard in raw.shards(split))
    sources = raw.sources(split) if raw.manifest.has_sources else [None] * raw.manifest.splits[split].samples
    for image, label, source in zip(images, raw.labels(split).tolist(), sources, strict=True):
        yield image.transpose(1, 2, 0) if len(image) > 1 else image[0], label, source


def read_parquet(target_dir: Path, split: str) -> tuple[list[str], Iterator[tuple]]:
    from datasets import load_dataset

    dataset = load_dataset(str(target_dir), split=HUB_SPLITS[split], cache_dir=str(target_dir.parent / "cache"))
    rows = ((np.asarray(row["image"]), row["label"], row.get("source")) for row in dataset)
    return dataset.features["label"].names, rows


def read_webdataset(target_dir: Path, split: str, image_mode: str) -> tuple[list[str], Iterator[tuple]]:
    from webdataset import WebDataset

    paths = sorted(str(path) for path in target_dir.glob(f"{HUB_SPLITS[split]}-*.tar"))
    samples = WebDataset(paths, shardshuffle=False).decode(image_mode)
    rows = ((np.asarray(row["png"]), row["cls"], row.get("json", {}).get("source")) for row in samples)
    return json.loads((target_dir / "classes.json").read_bytes()), rows


def read_mds(target_dir: Path, split: str) -> tuple[list[str], Iterator[tuple]]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(target_dir), split=HUB_SPLITS[split], batch_size=1, validate_hash="sha256")
    samples = (dataset[index] for index in range(len(dataset)))
    rows = ((np.asarray(row["image"]), int(row["label"]), row.get("source")) for row in samples)
    return json.loads((target_dir / "classes.json").read_bytes()), rows


if __name__ == "__main__":
    main()
