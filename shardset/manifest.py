"""manifest.json: what a shard set holds. The one typed, versioned model that writers and readers share."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, to_builtins

from shardset.errors import CorruptDataError, DamagedFileError, named_os_errors
from shardset.models import Model, parse, render_json

MANIFEST_NAME = "manifest.json"
SAMPLES_NAME = "samples.csv"  # in the folder of each split, if its samples come from image files

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)  # the order in which every manifest lists them
Dtype = Literal["float32", "float16", "uint8"]
Scheme = Literal["dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom"]
Orientation = Literal["exif", "ignore"]  # EXIF orientation is applied or not
# Not allowed in names: line breaks and other control characters, lone surrogates, which UTF-8 can't encode, and two
# code points that are no characters, which YAML doesn't allow.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=1)]


class SetFile(Model, frozen=True):
    """One file of the set; `path` is relative to the set's folder, with forward slashes."""

    path: Annotated[str, Meta(pattern=r"^((train|val|test)/)?[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class Shard(Model, frozen=True):
    """Consecutive samples: one .npy file of images and one of labels."""

    samples: Count
    images: SetFile
    labels: SetFile

    @property
    def files(self) -> tuple[SetFile, SetFile]:
        return self.images, self.labels


class SplitShards(Model, frozen=True):
    """All shards of a split, in sample order."""

    samples: Count
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        total = sum(shard.samples for shard in self.shards)
        if total != self.samples:
            raise ValueError(f"samples: should be {total}, the sum over the shards")

    @property
    def num_bytes(self) -> int:
        """Size of the split's shard files."""
        return sum(file.bytes for shard in self.shards for file in shard.files)


class Normalization(Model, frozen=True):
    """How pixels v become values: `(v / 255 - mean[c]) / std[c]`, one mean and std per channel."""

    scheme: Scheme
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Meta(gt=0)], ...]


class Preparation(Model, frozen=True):
    """How the images of files became pixels of one size.

    The short side was resized to `resize` pixels, or was as stored if that is null, and a square of `size` pixels was
    cut from the centre. What is transparent was laid on `background`.
    """

    resize: Count | None
    size: Count
    filter: Literal["bilinear"]
    orientation: Orientation
    background: Literal["white"]


class Manifest(Model, frozen=True):
    """The contents of manifest.json, except `manifest_sha256`.

    With dtype uint8 the images are the pixels themselves, and applying `normalization`, if any, is up to the reader.
    `preparation` is null unless the images come from image files. `skipped` counts the files that could not be read.
    """

    format_version: Literal[2]
    dataset: str
    classes: tuple[str, ...]
    dtype: Dtype
    layout: Literal["NCHW"]
    image_shape: tuple[Count, Count, Count]
    channels: tuple[str, ...]
    content_sha256: Sha256
    normalization: Normalization | None
    preparation: Preparation | None
    skipped: Annotated[int, Meta(ge=0)]
    splits: dict[Split, SplitShards]
    files: tuple[SetFile, ...]

    def __post_init__(self) -> None:
        if "train" not in self.splits or list(self.splits) != [split for split in SPLITS if split in self.splits]:
            found = [*self.splits]
            raise ValueError(
                f"splits: should be train, optionally followed by val and test, in this order, got {found}"
            )
        for key, names in (("dataset", (self.dataset,)), ("classes", self.classes), ("channels", self.channels)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: should be unique names")
            if any(map(UNPRINTABLE.search, names)):
                raise ValueError(f"{key}: should have no line breaks or other unprintable characters")
        if len(self.channels) != self.image_shape[0]:
            raise ValueError(f"channels: should have {self.image_shape[0]} names, one per channel of image_shape")
        if self.normalization:
            lengths = {len(self.normalization.mean), len(self.normalization.std)}
            if lengths != {len(self.channels)}:
                raise ValueError("normalization: should have a mean and a std for each channel")

    @property
    def num_samples(self) -> int:
        """Number of samples in all splits."""
        return sum(split.samples for split in self.splits.values())

    @property
    def num_bytes(self) -> int:
        """Size of all shard files."""
        return sum(split.num_bytes for split in self.splits.values())

    def shard_files(self) -> Iterator[SetFile]:
        """List the files of images and labels, split by split, in sample order."""
        for split in self.splits.values():
            for shard in split.shards:
                yield from shard.files

    @property
    def has_sources(self) -> bool:
        """Whether each split has a SAMPLES_NAME, which names the image file of each sample."""
        return any(file.path == f"train/{SAMPLES_NAME}" for file in self.files)

    def sizes(self) -> str:
        """Describe the number of samples of each split."""
        return ", ".join(f"{shards.samples:,} {split}" for split, shards in self.splits.items())

    def summary(self) -> str:
        """Describe the set in one line."""
        num_shards = sum(len(split.shards) for split in self.splits.values())
        shape = "x".join(map(str, self.image_shape))
        size = f"{self.num_bytes / 1e6:,.0f} MB in {num_shards} shard{'s' * (num_shards != 1)}"
        return f"{self.dataset}, {self.sizes()}, {shape} {self.dtype}, {size}"


def render_manifest(manifest: Manifest) -> str:
    """Render manifest.json. Its last key, `manifest_sha256`, is the SHA-256 of the text rendered without that key."""
    text = render_json(to_builtins(manifest))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    # Added to the text, because rendering it again takes seconds for some 10,000 shards.
    return text.removesuffix("\n}\n") + f',\n  "manifest_sha256": "{sha256}"\n}}\n'


def load_manifest(shards_dir: Path) -> Manifest:
    """Read a shard set's manifest.

    Raises DamagedFileError if it is missing or any of its bytes changed, and CorruptDataError for format version 1.
    """
    path = shards_dir / MANIFEST_NAME
    try:
        with named_os_errors(path):
            content = path.read_bytes()
        data = msgspec.json.decode(content)
        if isinstance(data, dict) and data.get("format_version") == 1:
            raise CorruptDataError(f"{path}: has format version 1, but only version 2 can be read. Rebuild the set.")
        return _parse_manifest(content, data)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFileError(f"{path}: missing, so {shards_dir} is not a complete shard set") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: {error}. Restore the file from the original source.") from None


def _parse_manifest(content: bytes, data: object) -> Manifest:
    if isinstance(data, dict):
        data.pop("manifest_sha256", None)  # compared below, with all other bytes
    manifest = parse(data, Manifest)
    if content != render_manifest(manifest).encode():
        raise ValueError("the text doesn't match its manifest_sha256, so the file has changed since it was written")
    return manifest
