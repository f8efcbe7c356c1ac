"""Tiny datasets in the native files of torchvision's classes, each written into a folder for torchvision to read."""

import bz2
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("apple_pie", "baklava", "carrot_cake")
IDX_TYPES = {"uint8": 0x08, "int32": 0x0C}


def make_pixels(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def write_image(path: Path, seed=0, size=(40, 30)) -> None:
    """Write an RGB image in the format that the name ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(make_pixels(1, (size[1], size[0], 3), seed)[0]).save(path)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, IDX_TYPES[array.dtype.name], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def write_mnist(folder: Path, name: str) -> None:
    for seed, (prefix, count) in enumerate((("train", 20), ("t10k", 10))):
        raw = folder / name / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", make_pixels(count, (28, 28), seed))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


def write_qmnist(folder: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        raw = folder / "QMNIST/raw"
        write_idx(raw / f"qmnist-{split}-images-idx3-ubyte", make_pixels(10, (28, 28), seed))
        # Eight facts about each digit, the first of which is the class.
        write_idx(raw / f"qmnist-{split}-labels-idx2-int", np.arange(80, dtype=np.int32).reshape(10, 8) // 8)


def usps_file(seed: int) -> bytes:
    pixels = make_pixels(10, (256,), seed) / 127.5 - 1
    lines = [
        f"{label + 1} " + " ".join(f"{number}:{value:.4f}" for number, value in enumerate(row, 1))
        for label, row in enumerate(pixels)
    ]
    return bz2.compress("\n".join(lines).encode())


def write_usps(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("usps.bz2", "usps.t.bz2")):
        (folder / name).write_bytes(usps_file(seed))


def write_svhn(folder: Path) -> dict[str, str]:
    savemat = pytest.importorskip("scipy.io").savemat
    for seed, split in enumerate(("train", "test")):
        labels = np.arange(1, 11, dtype=np.uint8)[:, None]
        pixels = np.moveaxis(make_pixels(10, (32, 32, 3), seed), 0, -1)
        savemat(folder / f"{split}_32x32.mat", {"X": pixels, "y": labels})
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def write_stl10(folder: Path) -> dict[str, str]:
    base = folder / "stl10_binary"
    base.mkdir()
    for seed, split in enumerate(("train", "test", "unlabeled")):
        (base / f"{split}_X.bin").write_bytes(make_pixels(10, (3, 96, 96), seed).tobytes())
        if split != "unlabeled":
            (base / f"{split}_y.bin").write_bytes(bytes(range(1, 11)))
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in base.iterdir()}
    (base / "class_names.txt").write_text("\n".join(f"name {index}" for index in range(10)))
    return md5


def write_class_folders(folder: Path, splits, classes=CLASSES, suffix=".jpg", size=(40, 30)) -> None:
    """Write two images of each class of each split, SPLIT/CLASS/NAME."""
    for seed, (split, label, index) in enumerate((s, c, i) for s in splits for c in classes for i in range(2)):
        write_image(folder / split / label / f"{index}{suffix}", seed, size)


def write_food101(folder: Path) -> None:
    base = folder / "food-101"
    (base / "meta").mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        # Not in the order of the names, which must be kept.
        files = {label: [f"{label}/{9 - index + 10 * number}" for index in range(2)] for label in reversed(CLASSES)}
        (base / f"meta/{split}.json").write_text(json.dumps(files))
        for seed, name in enumerate(name for of_class in files.values() for name in of_class):
            write_image(base / f"images/{name}.jpg", seed + 100 * number)


def write_pets(folder: Path) -> None:
    base = folder / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for number, split in enumerate(("trainval", "test")):
        names = [f"{label}_{index + 10 * number}" for label in ("Abyssinian", "great_pyrenees") for index in range(2)]
        lines = [f"{name} {1 + (index > 1)} 1 1\n" for index, name in enumerate(names)]
        (base / f"annotations/{split}.txt").write_text("".join(lines))
        for seed, name in enumerate(names):
            write_image(base / f"images/{name}.jpg", seed + 100 * number)


def write_dtd(folder: Path) -> None:
    base = folder / "dtd/dtd"
    (base / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{label}/{label}_{number}.jpg" for label in CLASSES]
        (base / f"labels/{split}1.txt").write_text("\n".join(names))
        for seed, name in enumerate(names):
            write_image(base / "images" / name, seed + 100 * number)


def write_aircraft(folder: Path) -> None:
    base = folder / "fgvc-aircraft-2013b/data"
    (base / "images").mkdir(parents=True)
    (base / "variants.txt").write_text("707-320\nA310\n")
    for number, split in enumerate(("train", "val", "test")):
        (base / f"images_variant_{split}.txt").write_text(f"1{number} A310\n2{number} 707-320\n")
        for seed in (1, 2):
            write_image(base / f"images/{seed}{number}.jpg", seed + 100 * number)


def write_gtsrb(folder: Path) -> None:
    base = folder / "gtsrb"
    for index in range(4):
        write_image(base / f"GTSRB/Training/0000{index % 2}/{index}.ppm", index)
        write_image(base / f"GTSRB/Final_Test/Images/{index}.ppm", index + 100)
    rows = [f"{index}.ppm;{index % 2}" for index in range(4)]
    (base / "GT-final_test.csv").write_text("\n".join(["Filename;ClassId", *rows]))


def write_sun397(folder: Path) -> None:
    (folder / "SUN397").mkdir()
    (folder / "SUN397/ClassName.txt").write_text("/a/abbey\n/b/basilica\n")
    for index in range(20):
        write_image(folder / "SUN397" / ("a/abbey", "b/basilica")[index % 2] / f"sun_{index * 7 % 20:02d}.jpg", index)


def write_caltech101(folder: Path) -> None:
    for label in ("BACKGROUND_Google", "Faces", "ant"):
        for index in (1, 2):
            write_image(folder / f"caltech101/101_ObjectCategories/{label}/image_{index:04d}.jpg", index)


def write_clevr(folder: Path) -> None:
    """Write images whose label is their number of objects. Those of test have none."""
    base = folder / "clevr/CLEVR_v1.0"
    (base / "scenes").mkdir(parents=True)
    for split in ("train", "val", "test"):
        for index in range(3):
            write_image(base / f"images/{split}/{index}.png", index)
        scenes = [{"image_filename": f"{index}.png", "objects": [0] * index} for index in range(3)]
        (base / f"scenes/CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))


WRITERS = {
    "MNIST": lambda folder: write_mnist(folder, "MNIST"),
    "FashionMNIST": lambda folder: write_mnist(folder, "FashionMNIST"),
    "KMNIST": lambda folder: write_mnist(folder, "KMNIST"),
    "QMNIST": write_qmnist,
    "USPS": write_usps,
    "EuroSAT": lambda folder: write_class_folders(folder, ("eurosat/2750",), size=(64, 64)),
    "Food101": write_food101,
    "OxfordIIITPet": write_pets,
    "DTD": write_dtd,
    "FGVCAircraft": write_aircraft,
    "GTSRB": write_gtsrb,
    "Imagenette": lambda folder: write_class_folders(
        folder / "imagenette2", ("train", "val"), ("n01440764", "n03888257"), ".jpeg"
    ),
    "Country211": lambda folder: write_class_folders(folder / "country211", ("train", "valid", "test")),
    "RenderedSST2": lambda folder: write_class_folders(
        folder / "rendered-sst2", ("train", "valid", "test"), ("negative", "positive"), ".png", (56, 56)
    ),
    "SUN397": write_sun397,
    "Caltech101": write_caltech101,
}
