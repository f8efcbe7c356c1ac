"""manifest.json: what a shard set holds. One typed, versioned model, shared by writer and reader."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, to_builtins

from pipeline.errors import CorruptDataError
from pipeline.files import render_json, write_synced
from pipeline.models import Model, parse

MANIFEST_NAME = "manifest.json"

# DVC trusts what is in its cache, and links it: a damaged file would come back from there.
TO_MEND = (
    "remove the file with its link in DVC's cache, `find . -samefile FILE -delete` in the top folder, and run "
    "`dvc repro`, or `dvc pull` where the set was imported"
)

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)  # also the order in which content_sha256 takes them
Dtype = Literal["float32", "float16", "uint8"]
Scheme = Literal["dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom"]

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=1)]


class ShardFile(Model, frozen=True):
    """One .npy file; `path` is relative to the shard set's folder, with forward slashes."""

    path: Annotated[str, Meta(pattern=r"^(train|test)/(images|labels)-\d{5,}-of-\d{5,}\.npy\Z")]
    bytes: Count
    sha256: Sha256


class Shard(Model, frozen=True):
    """The samples that lie side by side in one file of images and one of labels."""

    samples: Count
    images: ShardFile
    labels: ShardFile


class SplitShards(Model, frozen=True):
    """All shards of a split, in sample order."""

    samples: Count
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        total = sum(shard.samples for shard in self.shards)
        if total != self.samples:
            raise ValueError(f"samples: should be {total}, which is what the shards hold")


class Normalization(Model, frozen=True):
    """How pixels v become values: `(v / 255 - mean[c]) / std[c]`, one mean and std a channel."""

    scheme: Scheme
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Meta(gt=0)], ...]


class Manifest(Model, frozen=True):
    """The whole of manifest.json.

    With dtype uint8 the images are the pixels themselves, and `normalization`, if any, is left to the reader.
    """

    format_version: Literal[1]
    dataset: str
    classes: tuple[str, ...]
    dtype: Dtype
    layout: Literal["NCHW"]
    image_shape: tuple[Count, Count, Count]
    channels: tuple[str, ...]
    content_sha256: Sha256
    normalization: Normalization | None
    splits: dict[Split, SplitShards]

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"splits: should be {' and '.join(SPLITS)}")
        if len(self.channels) != self.image_shape[0]:
            raise ValueError("channels: should be as many as image_shape says")
        if self.normalization:
            lengths = {len(self.normalization.mean), len(self.normalization.std)}
            if lengths != {len(self.channels)}:
                raise ValueError("normalization: should have a mean and a std for each channel")

    @property
    def num_bytes(self) -> int:
        """Size of all shard files."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        return sum(shard.images.bytes + shard.labels.bytes for shard in shards)

    def summary(self) -> str:
        """Say in one line what the set holds."""
        samples = ", ".join(f"{self.splits[split].samples:,} {split}" for split in SPLITS)
        num_shards = sum(len(split.shards) for split in self.splits.values())
        shape = "x".join(map(str, self.image_shape))
        return f"{self.dataset}, {samples}, {shape} {self.dtype}, {self.num_bytes / 1e6:,.0f} MB in {num_shards} shards"


def render_manifest(manifest: Manifest) -> str:
    """Render manifest.json. Its last key, `manifest_sha256`, is the SHA-256 of the text that it would be without it."""
    data = to_builtins(manifest)
    return render_json(data | {"manifest_sha256": hashlib.sha256(render_json(data).encode()).hexdigest()})


def load_manifest(shards_dir: Path) -> Manifest:
    """Read a shard set's manifest. Raises CorruptDataError where there is none, or not each byte as it was written."""
    path = shards_dir / MANIFEST_NAME
    try:
        return _parse_manifest(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptDataError(
            f"{path}: missing, so {shards_dir} is no whole shard set: run `dvc repro` in the top folder, "
            "or `dvc pull` where the set was imported"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path}: {error}: {TO_MEND}") from None


def _parse_manifest(content: bytes) -> Manifest:
    data = msgspec.json.decode(content)
    if isinstance(data, dict):
        data.pop("manifest_sha256", None)  # compared below, with all the bytes
    manifest = parse(data, Manifest)
    if content != render_manifest(manifest).encode():
        raise ValueError("manifest_sha256: is not that of the text, or the text is not as it was written")
    return manifest


def save_manifest(manifest: Manifest, shards_dir: Path) -> None:
    """Write a shard set's manifest, which says that the set is whole: the last file to be written."""
    write_synced(shards_dir / MANIFEST_NAME, render_manifest(manifest))
