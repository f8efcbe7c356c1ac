"""Other ways to compute the mean and std of the train split: `python -m benchmarks.stats NAME` runs one.

The first line of each function's docstring goes into RESULTS.md.
"""

import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.inputs import CORES, THREADS, Block, blocks, dataset, image_paths, load_images, read_block, run_on


def limit(use: Callable = len) -> None:
    """Only reads the bytes, on threads."""

    def read(path: Path) -> None:
        buffer = np.empty(1 << 20, np.uint8)
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(buffer):
                use(buffer[:num_bytes])

    run_on(ThreadPoolExecutor(THREADS), read, image_paths("train"))


def hashed() -> None:
    """Only reads and hashes the bytes, on threads, and imports Typer."""
    import typer  # noqa: F401

    limit(lambda block: hashlib.sha256(block.data))


def bincount() -> None:
    """Exact histograms by `np.bincount`, on threads."""

    def count(block: Block) -> np.ndarray:
        images = read_block(block)
        return np.stack([np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(3)])

    print_moments(sum(run_on(ThreadPoolExecutor(THREADS), count, blocks("train"))))


def bincount_pairs() -> None:
    """`np.bincount` of two neighbouring pixels as one uint16, on threads: half as many values to count."""

    def count(block: Block) -> np.ndarray:
        images = read_block(block)
        pairs = [images[:, channel].ravel().view(np.uint16) for channel in range(3)]
        tables = np.stack([np.bincount(pair, minlength=1 << 16).reshape(256, 256) for pair in pairs])
        return tables.sum(1) + tables.sum(2)

    print_moments(sum(run_on(ThreadPoolExecutor(THREADS), count, blocks("train"))))


def print_moments(histograms: np.ndarray) -> None:
    """Print the mean and std of each channel from its histogram, (C, 256) counts."""
    values, count = np.arange(256), histograms.sum(1)
    mean = histograms @ values / count
    print(mean / 255, np.sqrt(histograms @ values**2 / count - mean**2) / 255)


def tutorial() -> None:
    """`ToTensor()` over the dataset, one float32 array of all images, `np.mean` and `np.std`."""
    everything = np.stack([image.numpy() for image, _ in dataset("train")])
    print(everything.mean(axis=(0, 2, 3)), everything.std(axis=(0, 2, 3)))


def dataloader(num_workers: int = 0) -> None:
    """`ToTensor()` in a DataLoader without workers, sums of each batch."""
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset("train"), 256, num_workers=num_workers)
    batches = [(images.sum((0, 2, 3)), (images**2).sum((0, 2, 3))) for images, _ in loader]
    total, squares = (torch.stack(part).double().sum(0) / 51_200_000 for part in zip(*batches, strict=True))
    print(total, (squares - total**2).sqrt())


def dataloader_workers() -> None:
    """The same with one worker per core."""
    dataloader(CORES)


def numpy() -> None:
    """One float64 array of all images, `mean` and `std`."""
    images = load_images("train") / 255
    print(images.mean(axis=(0, 2, 3)), images.std(axis=(0, 2, 3)))


def torch() -> None:
    """One float32 tensor of all images, `mean` and `std`, on torch's threads."""
    from torch import from_numpy

    images = from_numpy(load_images("train")).float().div(255)
    print(images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
