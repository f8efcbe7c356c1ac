"""Compare a reader over 2,000 shards with one over 20 shards of the same images: `python -m benchmarks.many_shards`."""

import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from benchmarks.run import new_folder
from pipeline.params import NormalizeParams
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import ShardDataset
from shardset.manifest import Dtype
from tests.helpers.shard_sets import write_raw_set

MANY, FEW = 2_000, 20
ROUNDS = 7
KINDS: tuple[tuple[Dtype, int, int], ...] = (("float32", 32, 40_000), ("uint8", 32, 40_000), ("uint8", 224, 4_000))


def main() -> None:
    folder = new_folder("many-shards")
    for dtype, side, num_images in KINDS:
        images = np.random.default_rng(0).integers(0, 256, (num_images, 3, side, side), np.uint8)
        write_raw_set(folder / "raw", images)
        datasets = {count: write_shards(folder, dtype, num_images, count) for count in (MANY, FEW)}
        for order in ("in order", "shuffled"):
            rates: dict[int, list[float]] = {MANY: [], FEW: []}
            for _ in range(ROUNDS):
                for count, dataset in datasets.items():
                    rates[count].append(read(dataset, shuffle=order == "shuffled"))
            many, few = (statistics.median(rates[count]) for count in (MANY, FEW))
            print(f"{dtype} {side} x {side}, {order}: {many:,.0f} and {few:,.0f} samples/s, {many / few:.2f} times")
    shutil.rmtree(folder)


def write_shards(folder: Path, dtype: Dtype, num_images: int, num_shards: int) -> ShardDataset:
    stats_path, shards_dir = folder / "stats.json", folder / f"{num_shards}"
    write_stats(folder / "raw", stats_path)
    params = NormalizeParams(
        scheme="dataset", mean=None, std=None, dtype=dtype, samples_per_shard=num_images // num_shards
    )
    normalize_shards(folder / "raw", stats_path, shards_dir, params)
    start = time.perf_counter()
    dataset = ShardDataset(shards_dir)
    print(f"{num_shards:,} shards opened in {time.perf_counter() - start:.3f} s")
    return dataset


def read(dataset: ShardDataset, *, shuffle: bool) -> float:
    """Read an epoch, and return the samples per second."""
    start = time.perf_counter()
    num_samples = sum(len(labels) for _, labels in DataLoader(dataset, batch_size=256, shuffle=shuffle))
    return num_samples / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
