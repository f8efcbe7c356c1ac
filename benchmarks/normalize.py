"""Other ways to write 60,000 normalized float32 images to disk: `python -m benchmarks.normalize NAME` runs one.

All spread their work over the cores, and all wait until the disk has the bytes. The first line of each function's
docstring goes into RESULTS.md.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.inputs import (
    BLOCK_SAMPLES,
    CORES,
    OUT_DIR,
    SHARDS_DIR,
    SPLITS,
    THREADS,
    Block,
    blocks,
    blocks_of,
    dataset,
    image_paths,
    labels_path,
    load_images,
    load_labels,
    normalized,
    run_on,
    samples,
)


def limit() -> None:
    """Only writes as many bytes in as many files, hashed, on threads."""

    def write(path: Path) -> None:
        block = np.arange(196_608, dtype=np.float32)
        left, sha256 = path.stat().st_size, hashlib.sha256()
        with (OUT_DIR / f"{path.parent.name}-{path.name}").open("wb") as file:
            while left:
                part = block.view(np.uint8)[:left]
                file.write(part.data)
                sha256.update(part.data)
                left -= len(part)
            file.flush()
            os.fsync(file.fileno())

    run_on(ThreadPoolExecutor(THREADS), write, SHARDS_DIR.glob("*/*.npy"))


def torchvision() -> None:
    """`ToTensor()` and `Normalize()` in a DataLoader with workers, `np.save`; not hashed."""
    import torch
    from torch.utils.data import DataLoader

    for split in SPLITS:
        loader = DataLoader(dataset(split, normalize=True), 256, num_workers=CORES)
        images, labels = (torch.cat(part) for part in zip(*loader, strict=True))
        np.save(OUT_DIR / f"{split}-images.npy", images.numpy())
        np.save(OUT_DIR / f"{split}-labels.npy", labels.numpy())


def litdata() -> None:
    """`optimize` with workers, chunks of 64 MB; not hashed."""
    from litdata import optimize

    for split in SPLITS:
        optimize(litdata_samples, blocks(split), str(OUT_DIR / split), chunk_bytes="64MB", num_workers=CORES)


def litdata_samples(block: Block) -> Iterator[dict[str, object]]:
    yield from samples([block])


def mds() -> None:
    """`MDSWriter` on processes, a folder per raw shard, and `merge_index`; hashed."""
    from streaming.base.util import merge_index

    run_on(ProcessPoolExecutor(CORES), write_mds, image_paths())
    for split in SPLITS:
        merge_index(str(OUT_DIR / split))


def write_mds(path: Path) -> None:
    from streaming import MDSWriter

    columns = {"image": "ndarray:float32:3,32,32", "label": "int"}
    with MDSWriter(out=str(OUT_DIR / path.parent.name / path.stem), columns=columns, hashes=["sha256"]) as writer:
        for sample in samples(blocks_of(path)):
            writer.write(sample)


def ffcv() -> None:
    """`DatasetWriter` with workers; not hashed."""
    for split in SPLITS:
        write_ffcv(split, OUT_DIR / f"{split}.beton")


def write_ffcv(split: str, path: Path) -> None:
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    fields = {"image": NDArrayField(np.dtype("float32"), (3, 32, 32)), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=CORES).from_indexed_dataset(Pairs(split))


class Pairs:
    """A split for FFCV's writer, whose workers ask for consecutive samples."""

    def __init__(self, split: str) -> None:
        self.images, self.labels = load_images(split), load_labels(split)
        self.block = lru_cache(1)(lambda start: normalized(self.images[start : start + BLOCK_SAMPLES]))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        within = index % BLOCK_SAMPLES
        return self.block(index - within)[within], int(self.labels[index])


def huggingface() -> None:
    """`Dataset.from_generator` with workers; its Arrow files are the result; not hashed."""
    for split in SPLITS:
        write_huggingface(split)


def write_huggingface(split: str):
    # Installed in a separate folder, because it needs a different huggingface_hub than MDS does.
    sys.path.insert(0, os.environ["HUGGINGFACE_DIR"])
    from datasets import Array3D, Dataset, Features, Value

    return Dataset.from_generator(
        samples,
        features=Features({"image": Array3D((3, 32, 32), "float32"), "label": Value("int64")}),
        cache_dir=str(OUT_DIR / split),
        gen_kwargs={"wanted": blocks(split)},
        num_proc=CORES,
        fingerprint=split,  # because hashing the generator fails with some versions of dill
    )


def webdataset() -> None:
    """`TarWriter` on processes, a file per raw shard; not hashed."""
    import_module("webdataset")  # before the processes are forked, so that they share it
    run_on(ProcessPoolExecutor(CORES), write_tar, image_paths())


def write_tar(path: Path) -> None:
    from webdataset import TarWriter

    with TarWriter(str(OUT_DIR / f"{path.parent.name}-{path.stem}.tar")) as writer:
        for index, sample in enumerate(samples(blocks_of(path))):
            writer.write({"__key__": f"{index:08d}", "image.npy": sample["image"], "label.cls": sample["label"]})


def zarr() -> None:
    """Uncompressed arrays on threads, a chunk per raw shard; not hashed."""
    from zarr import open_group

    group = open_group(OUT_DIR / "set.zarr", mode="w")
    for split in SPLITS:
        paths, labels = image_paths(split), load_labels(split)
        size = len(np.load(paths[0], mmap_mode="r"))
        options = {"dtype": "f4", "compressors": None}
        images = group.create_array(
            f"{split}-images", shape=(len(labels), 3, 32, 32), chunks=(size, 3, 32, 32), **options
        )
        group.create_array(f"{split}-labels", data=labels, compressors=None)

        def write(start: int, images=images, paths=paths, size=size) -> None:
            images[start : start + size] = normalized(np.load(paths[start // size]))

        run_on(ThreadPoolExecutor(CORES), write, range(0, len(labels), size))


def safetensors() -> None:
    """A file per raw shard, on threads; not hashed."""
    from safetensors.numpy import save_file

    def write(path: Path) -> None:
        tensors = {"images": normalized(np.load(path)), "labels": np.load(labels_path(path))}
        save_file(tensors, OUT_DIR / f"{path.parent.name}-{path.stem}.safetensors")

    run_on(ThreadPoolExecutor(CORES), write, image_paths())


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    OUT_DIR.mkdir(exist_ok=True)
    globals()[sys.argv[1]]()
    run_on(ThreadPoolExecutor(THREADS), sync, [path for path in OUT_DIR.rglob("*") if path.is_file()])
