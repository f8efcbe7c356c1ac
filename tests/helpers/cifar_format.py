"""Tiny datasets in CIFAR's original format: pickled batches, with their entry for the registry."""

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.sources.registry import DATASETS, Archive, Batches, Dataset
from shardset.content import hash_content, hash_images

BASE_FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{index}" for index in range(1, 6))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class TinyCifar:
    """A tiny dataset: its files, its archive, and the images and labels that they should give."""

    files: dict[str, bytes]
    archive: bytes
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def content_sha256(self) -> str:
        return hash_content((hash_images(images), labels) for images, labels in (self.train, self.test))

    def write_files(self, folder: Path) -> Path:
        (folder / BASE_FOLDER).mkdir(parents=True)
        for name, content in self.files.items():
            (folder / BASE_FOLDER / name).write_bytes(content)
        return folder

    def facts(self, *urls: str) -> Dataset:
        """This dataset's entry for the registry."""
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        archive = Archive(
            file_name="tiny.tar.gz",
            num_bytes=len(self.archive),
            sha256=hashlib.sha256(self.archive).hexdigest(),
            urls=urls,
            files=Batches(
                folder=BASE_FOLDER,
                batches={
                    "train": {name: md5[name] for name in TRAIN_FILES},
                    "test": {"test_batch": md5["test_batch"]},
                },
                meta=("batches.meta", md5["batches.meta"]),
                classes_key="label_names",
                labels_key="labels",
            ),
        )
        return Dataset(content_sha256=self.content_sha256, archive=archive)


def make_tiny_cifar(images_per_file: int = 20, seed: int = 0) -> TinyCifar:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (6, images_per_file, 3072), np.uint8)
    labels = rng.integers(0, 10, (6, images_per_file))
    files = {
        name: dump_as_python2(
            {"batch_label": name, "labels": labels[index].tolist(), "data": pixels[index], "filenames": []}
        )
        for index, name in enumerate((*TRAIN_FILES, "test_batch"))
    }
    files["batches.meta"] = dump_as_python2({"label_names": list(CLASSES), "num_vis": 3072})
    return TinyCifar(
        files=files,
        archive=make_archive({f"{BASE_FOLDER}/{name}": content for name, content in files.items()}),
        train=(pixels[:5].reshape(-1, 3, 32, 32), labels[:5].ravel().astype(np.int64)),
        test=(pixels[5].reshape(-1, 3, 32, 32), labels[5].astype(np.int64)),
    )


def make_tiny_cifar100(samples_per_file: int = 10) -> tuple[dict[str, bytes], Batches]:
    """Files in CIFAR-100's layout, which have fine and coarse labels, and their registry entry with their own MD5s."""
    rng = np.random.default_rng(100)
    files = {
        name: dump_as_python2(
            {
                "filenames": [],
                "batch_label": name,
                "fine_labels": rng.integers(0, 100, samples_per_file).tolist(),
                "coarse_labels": rng.integers(0, 20, samples_per_file).tolist(),
                "data": rng.integers(0, 256, (samples_per_file, 3072), np.uint8),
            }
        )
        for name in ("train", "test")
    }
    names = {"fine_label_names": [f"fine {i}" for i in range(100)], "coarse_label_names": [f"c {i}" for i in range(20)]}
    files["meta"] = dump_as_python2(names)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    batches = {"train": {"train": md5["train"]}, "test": {"test": md5["test"]}}
    return files, replace(DATASETS["cifar100"].archive.files, batches=batches, meta=("meta", md5["meta"]))


def dump_as_python2(data: object) -> bytes:
    """Pickle as Python 2 did when CIFAR was published: byte strings, and numpy's module name of that time."""

    class Pickler(pickle._Pickler):
        def save_string(self, text):
            content = text if isinstance(text, bytes) else text.encode("latin-1")
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
            self.memoize(text)

        dispatch = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}  # noqa: RUF012

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(data)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def make_archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
