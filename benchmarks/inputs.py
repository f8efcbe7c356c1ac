"""What the contenders share: data/raw as arrays, blocks, samples, or a dataset like torchvision's."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

RAW_DIR = Path("data/raw")
SHARDS_DIR = Path("data/shards")
IMAGES_DIR = Path("data/images")
OUT_DIR = Path("out")

MEAN = (0.49139967861519607, 0.48215840839460783, 0.44653091444546567)
STD = (0.24703223246328201, 0.24348512800005553, 0.2615878417279645)

SPLITS = ("train", "test")
BLOCK_SAMPLES = 1000  # read and normalized at a time, so that the memory is what the format needs
CORES = os.cpu_count() or 1
THREADS = CORES + 1  # as many as the stages use

Block = tuple[str, int]  # the path of a raw shard's images, and the first sample


def image_paths(split: str = "*") -> list[Path]:
    return sorted(RAW_DIR.glob(f"{split}/images-*.npy"))


def labels_path(images_path: str | Path) -> Path:
    path = Path(images_path)
    return path.with_name(path.name.replace("images", "labels"))


def load_images(split: str) -> np.ndarray:
    return np.concatenate([np.load(path) for path in image_paths(split)])


def load_labels(split: str) -> np.ndarray:
    return np.concatenate([np.load(labels_path(path)) for path in image_paths(split)])


def blocks_of(path: Path) -> list[Block]:
    return [(str(path), start) for start in range(0, len(np.load(path, mmap_mode="r")), BLOCK_SAMPLES)]


def blocks(split: str) -> list[Block]:
    return [block for path in image_paths(split) for block in blocks_of(path)]


def read_block(block: Block) -> np.ndarray:
    path, start = block
    return np.load(path, mmap_mode="r")[start : start + BLOCK_SAMPLES]


def samples(wanted: Iterable[Block]) -> Iterator[dict[str, object]]:
    for path, start in wanted:
        labels = read_block((str(labels_path(path)), start)).tolist()
        for image, label in zip(normalized(read_block((path, start))), labels, strict=True):
            yield {"image": image, "label": label}


def normalized(images: np.ndarray) -> np.ndarray:
    values = images.astype(np.float32)
    values /= np.float32(255)
    values -= np.array(MEAN, np.float32)[:, None, None]
    values /= np.array(STD, np.float32)[:, None, None]
    return values


def dataset(split: str, *, normalize: bool = False):
    """Return a dataset that works like torchvision's: one PIL image at a time, passed through transforms."""
    from PIL import Image
    from torch.utils.data import Dataset
    from torchvision import transforms

    images, labels = load_images(split).transpose(0, 2, 3, 1), load_labels(split)
    steps = [transforms.ToTensor(), *([transforms.Normalize(MEAN, STD)] if normalize else [])]
    transform = transforms.Compose(steps)

    class Images(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return transform(Image.fromarray(images[index])), int(labels[index])

    return Images()


def run_on(pool: Executor, function: Callable, items: Iterable) -> list:
    with pool:
        return list(pool.map(function, items))
