"""Other ways to turn image files into pixels of one size on disk: `python -m benchmarks.decode NAME` runs one.

All decode, resize the short side to 256 by Pillow's bilinear filter, crop the centre to 224 x 224, and store the pixels
uncompressed as uint8, with the labels; all but `limit`, which stores nothing, wait until the disk has the bytes. The
first line of each function's docstring goes into RESULTS.md.

The images are in class folders in a folder for each split. `generate_images` makes them where there are no photographs.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.inputs import CORES, IMAGES_DIR, OUT_DIR, THREADS, run_on
from benchmarks.normalize import sync

RESIZE, SIZE = 256, 224
CLASSES = tuple(f"class_{index}" for index in range(10))
PER_CLASS = {"train": 120, "val": 15, "test": 15}
WIDTH, HEIGHT = 400, 540

Sample = tuple[str, int]  # path and label


def splits() -> list[str]:
    return sorted(path.name for path in IMAGES_DIR.iterdir() if path.is_dir())


def samples(split: str) -> list[Sample]:
    folders = sorted(path for path in (IMAGES_DIR / split).iterdir() if path.is_dir())
    return [(str(path), label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]


def prepare(image: Image.Image) -> np.ndarray:
    """Return the pixels, (224, 224, 3) uint8, that torchvision's `Resize(256)` and `CenterCrop(224)` give."""
    short = min(image.size)
    width, height = (int(RESIZE * side / short) for side in image.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    colored = image if image.mode == "RGB" else image.convert("RGB")
    resized = colored.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))


def decode(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return prepare(image)


def limit() -> None:
    """Only decodes, resizes and crops into an array in memory, on as many threads as cores; nothing is stored."""
    paths = [path for split in splits() for path, _ in samples(split)]
    pixels = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)

    def fill(index: int) -> None:
        pixels[index] = decode(paths[index])

    run_on(ThreadPoolExecutor(CORES), fill, range(len(paths)))


def torchvision() -> None:
    """`ImageFolder`, `Resize` and `CenterCrop` in a DataLoader with workers, `np.save` per split; not hashed."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.Resize(RESIZE), transforms.CenterCrop(SIZE), transforms.PILToTensor()]
    for split in splits():
        data = datasets.ImageFolder(IMAGES_DIR / split, transforms.Compose(steps))
        images, labels = (torch.cat(part) for part in zip(*DataLoader(data, 64, num_workers=CORES), strict=True))
        np.save(OUT_DIR / f"{split}-images.npy", images.numpy())
        np.save(OUT_DIR / f"{split}-labels.npy", labels.numpy())


def huggingface() -> None:
    """`imagefolder` and `map` with workers, to `Array3D`, and `save_to_disk`; not hashed."""
    sys.path.insert(0, os.environ["HUGGINGFACE_DIR"])  # as in benchmarks/normalize.py
    from datasets import Array3D, Features, load_dataset

    data = load_dataset("imagefolder", data_dir=str(IMAGES_DIR.resolve()), cache_dir=str(OUT_DIR / "cache"))
    labels = data["train"].features["label"]
    features = Features({"image": Array3D((SIZE, SIZE, 3), "uint8"), "label": labels})
    prepared = data.map(prepare_row, features=features, num_proc=CORES)
    prepared.save_to_disk(str(OUT_DIR / "prepared"))


def prepare_row(row: dict) -> dict[str, object]:
    return {"image": prepare(row["image"]), "label": row["label"]}


def litdata() -> None:
    """`optimize` with workers, chunks of 64 MB; not hashed."""
    from litdata import optimize

    for split in splits():
        optimize(to_row, samples(split), str(OUT_DIR / split), chunk_bytes="64MB", num_workers=CORES)


def to_row(sample: Sample) -> dict[str, object]:
    path, label = sample
    return {"image": decode(path), "label": label}


def mds() -> None:
    """`MDSWriter` on as many processes as cores, a folder for each and `merge_index`; hashed."""
    from streaming.base.util import merge_index

    run_on(ProcessPoolExecutor(CORES), write_mds, [(split, part) for split in splits() for part in range(CORES)])
    for split in splits():
        merge_index(str(OUT_DIR / split))


def write_mds(job: tuple[str, int]) -> None:
    from streaming import MDSWriter

    split, part = job
    data = samples(split)
    columns = {"image": f"ndarray:uint8:{SIZE},{SIZE},3", "label": "int"}
    with MDSWriter(out=str(OUT_DIR / split / str(part)), columns=columns, hashes=["sha256"]) as writer:
        for sample in data[part * len(data) // CORES : (part + 1) * len(data) // CORES]:
            writer.write(to_row(sample))


def ffcv() -> None:
    """`DatasetWriter` with workers, an `RGBImageField` that stores raw pixels; not hashed."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    for split in splits():
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        DatasetWriter(str(OUT_DIR / f"{split}.beton"), fields, num_workers=CORES).from_indexed_dataset(Pairs(split))


class Pairs:
    """A split for FFCV's writer."""

    def __init__(self, split: str) -> None:
        self.samples = samples(split)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        return decode(path), label


def generate_images(folder: Path) -> None:
    """Make 1,500 JPEGs of 400 x 540 pixels, of about 84 KB: noise whose amplitude falls with the frequency.

    The spectrum, 1/f, is that of photographs. So is the size at quality 75: 0.4 bytes per pixel, of which small
    photographs for the web have 0.1 and ImageNet's 0.5.
    """
    names = [
        folder / split / name / f"{number:03}.jpg"
        for split, count in PER_CLASS.items()
        for name in CLASSES
        for number in range(count)
    ]
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)).astype(np.float32)[..., None]
    frequency[0, 0] = np.inf

    def generate(seed: int) -> None:
        noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 3), np.float32)
        values = np.fft.irfft2(np.fft.rfft2(noise, axes=(0, 1)) / frequency, (HEIGHT, WIDTH), axes=(0, 1))
        values /= values.std()
        pixels = 128 + 50 * values[..., :1] + 10 * values  # brightness varies more than colour
        names[seed].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(names[seed], quality=75)

    run_on(ThreadPoolExecutor(CORES), generate, range(len(names)))


if __name__ == "__main__":
    OUT_DIR.mkdir(exist_ok=True)
    globals()[sys.argv[1]]()
    run_on(ThreadPoolExecutor(THREADS), sync, [path for path in OUT_DIR.rglob("*") if path.is_file()])
