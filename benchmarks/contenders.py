"""What the stages are compared with: the minimum that any program has to do, and the usual alternatives.

`python benchmarks/contenders.py JOB NAME` does a job once, in a process of its own. Each contender reads data/raw in
the way that suits it best, and writes to out.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

RAW_DIR = Path("data/raw")
SHARDS_DIR = Path("data/shards")
OUT_DIR = Path("out")

MEAN = (0.49139967861519607, 0.48215840839460783, 0.44653091444546567)
STD = (0.24703223246328201, 0.24348512800005553, 0.2615878417279645)

SPLITS = ("train", "test")


def paths(kind: str, root: Path = RAW_DIR, split: str = "*") -> list[Path]:
    return sorted(root.glob(f"{split}/{kind}-*.npy"))


def load(kind: str, split: str) -> np.ndarray:
    return np.concatenate([np.load(path) for path in paths(kind, split=split)])


def dataset(split: str, *, normalize: bool = False):
    """Return a dataset that works like torchvision's: one PIL image at a time, passed through transforms."""
    from PIL import Image
    from torch.utils.data import Dataset
    from torchvision import transforms

    images, labels = load("images", split).transpose(0, 2, 3, 1), load("labels", split)
    steps = [transforms.ToTensor(), *([transforms.Normalize(MEAN, STD)] if normalize else [])]
    transform = transforms.Compose(steps)

    class Images(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return transform(Image.fromarray(images[index])), int(labels[index])

    return Images()


def normalized(split: str) -> np.ndarray:
    """Normalize an entire split in numpy, so that for other formats only the writing differs."""
    values = load("images", split).astype(np.float32)
    values /= np.float32(255)
    values -= np.array(MEAN, np.float32)[:, None, None]
    values /= np.array(STD, np.float32)[:, None, None]
    return values


def samples() -> Iterator[tuple[str, int, np.ndarray, int]]:
    for split in SPLITS:
        for index, (image, label) in enumerate(zip(normalized(split), load("labels", split).tolist(), strict=True)):
            yield split, index, image, label


# Job `stats`: mean and std of the train split.


def stats_limit(use=len) -> None:
    """Start Python, import numpy, and read the bytes once into a reused buffer."""

    def read(path: Path) -> None:
        buffer = np.empty(1 << 20, np.uint8)
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(buffer):
                use(buffer[:num_bytes])

    with ThreadPoolExecutor(os.cpu_count() + 1) as pool:
        list(pool.map(read, paths("images", split="train")))


def stats_hashed() -> None:
    """Add to the limit what the pipeline requires: importing Typer, and hashing every byte with SHA-256."""
    import typer  # noqa: F401

    stats_limit(lambda block: hashlib.sha256(block.data))


def stats_tutorial() -> None:
    """Do what many tutorials do: ToTensor over the dataset, one array of all images, np.mean and np.std."""
    everything = np.stack([image.numpy() for image, _ in dataset("train")])
    print(everything.mean(axis=(0, 2, 3)), everything.std(axis=(0, 2, 3)))


def stats_dataloader() -> None:
    import torch
    from torch.utils.data import DataLoader

    batches = [(images.sum((0, 2, 3)), (images**2).sum((0, 2, 3))) for images, _ in DataLoader(dataset("train"), 256)]
    total, squares = (torch.stack(part).double().sum(0) / 51_200_000 for part in zip(*batches, strict=True))
    print(total, (squares - total**2).sqrt())


def stats_numpy() -> None:
    images = load("images", "train") / 255
    print(images.mean(axis=(0, 2, 3)), images.std(axis=(0, 2, 3)))


def stats_torch() -> None:
    import torch

    images = torch.from_numpy(load("images", "train")).float().div(255)
    print(images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0))


# Job `normalize`: 60,000 images to float32 on disk.


def normalize_limit() -> None:
    """Write, hash and flush as many bytes in as many files and threads, from one block in cache."""

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

    with ThreadPoolExecutor(os.cpu_count() + 1) as pool:
        list(pool.map(write, paths("*", SHARDS_DIR)))


def normalize_torchvision() -> None:
    for split in SPLITS:
        images, labels = zip(*dataset(split, normalize=True), strict=True)
        np.save(OUT_DIR / f"{split}-images.npy", np.stack([image.numpy() for image in images]))
        np.save(OUT_DIR / f"{split}-labels.npy", labels)


LITDATA_VALUES: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def litdata_sample(item: tuple[str, int]) -> dict[str, object]:
    split, index = item
    if split not in LITDATA_VALUES:
        LITDATA_VALUES[split] = normalized(split), load("labels", split)
    images, labels = LITDATA_VALUES[split]
    return {"image": images[index], "label": int(labels[index])}


def normalize_litdata() -> None:
    from litdata import optimize

    for split in SPLITS:
        items = [(split, index) for index in range(len(load("labels", split)))]
        optimize(litdata_sample, items, str(OUT_DIR / split), chunk_bytes="64MB", num_workers=os.cpu_count())


def normalize_mds() -> None:
    from streaming import MDSWriter

    for split in SPLITS:
        columns = {"image": "ndarray:float32:3,32,32", "label": "int"}
        with MDSWriter(out=str(OUT_DIR / split), columns=columns, hashes=["sha256"]) as writer:
            for image, label in zip(normalized(split), load("labels", split).tolist(), strict=True):
                writer.write({"image": image, "label": label})


def normalize_ffcv() -> None:
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    for split in SPLITS:
        images, labels = normalized(split), load("labels", split)

        class Pairs:
            def __init__(self, images, labels):
                self.pairs = images, labels

            def __len__(self):
                return len(self.pairs[0])

            def __getitem__(self, index):
                return self.pairs[0][index], int(self.pairs[1][index])

        fields = {"image": NDArrayField(np.dtype("float32"), (3, 32, 32)), "label": IntField()}
        writer = DatasetWriter(str(OUT_DIR / f"{split}.beton"), fields, num_workers=os.cpu_count())
        writer.from_indexed_dataset(Pairs(images, labels))


def normalize_huggingface() -> None:
    # Installed in a separate folder, because it needs a different huggingface_hub than MDS does.
    sys.path.insert(0, os.environ["HUGGINGFACE_DIR"])
    from datasets import Array3D, Dataset, Features, Value

    features = Features({"image": Array3D((3, 32, 32), "float32"), "label": Value("int64")})
    for split in SPLITS:

        def rows(split=split):
            for image, label in zip(normalized(split), load("labels", split).tolist(), strict=True):
                yield {"image": image, "label": label}

        # With an explicit fingerprint, because hashing the generator fails with some versions of dill.
        Dataset.from_generator(
            rows, features=features, cache_dir=str(OUT_DIR / "cache"), fingerprint=split
        ).save_to_disk(str(OUT_DIR / split))


def normalize_webdataset() -> None:
    from webdataset import ShardWriter

    writers = {split: ShardWriter(str(OUT_DIR / f"{split}-%05d.tar"), maxcount=10_000, verbose=0) for split in SPLITS}
    for split, index, image, label in samples():
        writers[split].write({"__key__": f"{index:08d}", "image.npy": image, "label.cls": label})
    for writer in writers.values():
        writer.close()


def normalize_zarr() -> None:
    import zarr

    group = zarr.open_group(OUT_DIR / "set.zarr", mode="w")
    for split in SPLITS:
        values = normalized(split)
        array = group.create_array(split, shape=values.shape, chunks=(10_000, 3, 32, 32), dtype="f4", compressors=None)
        array[:] = values


def normalize_safetensors() -> None:
    from safetensors.numpy import save_file

    for split in SPLITS:
        save_file({"images": normalized(split), "labels": load("labels", split)}, OUT_DIR / f"{split}.safetensors")


if __name__ == "__main__":
    OUT_DIR.mkdir(exist_ok=True)
    globals()["_".join(sys.argv[1:])]()
