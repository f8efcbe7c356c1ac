"""The least that each stage has to do. `python -m benchmarks.growth.limits STAGE` does it, where the stage has run.

The first line of each function's docstring goes into RESULTS.md.
"""

import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.decode import prepare
from benchmarks.inputs import CORES, OUT_DIR, RAW_DIR, SHARDS_DIR, THREADS, image_paths, run_on

TAR_PATH = Path("data/images.tar")
MEMBERS = 64  # of the archive, decoded at a time
BLOCK_BYTES = 1 << 20


def download() -> None:
    """Only decodes, resizes and crops, on as many processes as cores; nothing is hashed or stored."""
    with tarfile.open(TAR_PATH) as archive:
        places = [(member.offset_data, member.size) for member in archive if member.isfile()]
    chunks = [places[start : start + MEMBERS] for start in range(0, len(places), MEMBERS)]
    run_on(ProcessPoolExecutor(CORES), _decode, chunks)


def stats() -> None:
    """Only reads and hashes the images of train, on threads."""
    run_on(ThreadPoolExecutor(THREADS), _hash, image_paths("train"))


def audit() -> None:
    """Only reads and hashes the images, on threads."""
    run_on(ThreadPoolExecutor(THREADS), _hash, image_paths())


def normalize() -> None:
    """Only copies the images, hashed once and flushed to the disk, on threads."""
    run_on(ThreadPoolExecutor(THREADS), _copy, image_paths())


def report() -> None:
    """Only reads and hashes the images of data/raw and data/shards, on threads."""
    paths = [path for folder in (RAW_DIR, SHARDS_DIR) for path in folder.glob("*/images-*.npy")]
    run_on(ThreadPoolExecutor(THREADS), _hash, paths)


def _decode(places: list[tuple[int, int]]) -> None:
    with TAR_PATH.open("rb") as file:
        for offset, size in places:
            file.seek(offset)
            prepare(Image.open(io.BytesIO(file.read(size))))


def _hash(path: Path) -> None:
    sha256 = hashlib.sha256()
    for block in _blocks(path):
        sha256.update(block.data)


def _copy(path: Path) -> None:
    sha256 = hashlib.sha256()
    with (OUT_DIR / f"{path.parent.name}-{path.name}").open("wb") as file:
        for block in _blocks(path):
            sha256.update(block.data)
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())


def _blocks(path: Path) -> Iterator[np.ndarray]:
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    with path.open("rb", buffering=0) as file:
        while num_bytes := file.readinto(buffer):
            yield buffer[:num_bytes]


LIMITS = {limit.__name__: limit for limit in (download, stats, audit, normalize, report)}

if __name__ == "__main__":
    OUT_DIR.mkdir(exist_ok=True)
    LIMITS[sys.argv[1]]()
