"""`ShardDataset`: a split of a shard set as a dataset for torch's DataLoader."""

from collections.abc import Callable, Mapping, Sequence
from operator import index as as_index
from os import PathLike
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from shardset.batch import Batch, Sample, new_tensor
from shardset.errors import InputError
from shardset.indices import load_indices
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of, normalize_pixels
from shardset.reader import Array, split_range
from shardset.shards import open_shards
from shardset.split import OpenSplit

Verify = Literal["size", "hash"]


class ShardDataset(Dataset):  # type: ignore[misc]  # mypy doesn't follow torch's imports
    """A split as (image, label) pairs: a normalized float32 tensor (C, H, W) and the class index, an int.

    From float32 and uint8 shards, sample i equals that of torchvision's dataset with `ToTensor()` and
    `Normalize(mean, std)` bit for bit; from float16 shards it is rounded. Raw pixels are scaled to [0, 1].
    With `normalize=False` the images are the pixels, uint8, for transforms that expect them.

    `transform` and `target_transform` are called with each image and each label, as in torchvision.

    `indices` is the path of a CSV with a column `index`, for example test_without_leaks.csv of the audit: the dataset
    holds only these samples of the split, in that order. To give indices in memory, use torch's `Subset`.

    Images are read from memory-mapped files, or from a copy in RAM with `preload`. A pickled dataset contains no
    images: a spawned worker opens the files itself, and refuses a set that was replaced since.

    `verify="hash"` compares every byte of the split with the manifest and rejects files that it doesn't list.
    `verify="size"` and None check only the size, dtype and shape of each file, since mapping a file that is too short
    would crash the process.

    Raises CorruptDataError, which names the file, or InputError for an unknown `split` or `verify`, for `indices` that
    aren't those of the split, and for `normalize=False` on a set that contains no pixels.
    """

    def __init__(  # noqa: PLR0913 (most are passed by keyword)
        self,
        shards_dir: str | PathLike[str],
        split: Split = "train",
        *,
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        normalize: bool = True,
        preload: bool = False,
        indices: str | PathLike[str] | None = None,
        verify: Verify | None = "size",
    ) -> None:
        self._shards = shards = open_shards(shards_dir)
        splits = tuple(shards.manifest.splits)
        for name, value, allowed in (("split", split, splits), ("verify", verify, (*get_args(Verify), None))):
            if value not in allowed:
                raise InputError(f"{name}: should be one of {', '.join(map(repr, allowed))}, got {value!r}")
        if not normalize and shards.manifest.dtype != "uint8":
            raise InputError(
                f"normalize: False needs pixels, but {shards.dir} holds normalized {shards.manifest.dtype} values. "
                "Use a set written with `dtype: uint8`, or the raw set."
            )
        num_samples = shards.manifest.splits[split].samples
        chosen = None if indices is None else load_indices(indices, split, num_samples)
        self.split = split
        self.transform = transform
        self.target_transform = target_transform
        if verify == "hash":
            others = [shard for other in splits if other != split for shard in shards.shards(other)]
            shards.verify(exclude={file for shard in others for file in shard.files})
        self._normalize = normalize
        self._normalization = normalization_of(shards.manifest)
        self._class_to_idx = {name: index for index, name in enumerate(shards.manifest.classes)}
        self._data = OpenSplit(shards, split, preload, chosen)

    def __repr__(self) -> str:
        manifest = self.manifest
        num_samples = manifest.splits[self.split].samples
        of_split = f" of {num_samples:,}" if len(self) != num_samples else ""
        return (
            f"<ShardDataset {manifest.dataset} {self.split}: {len(self):,}{of_split} samples, "
            f"{tuple(manifest.image_shape)} {manifest.dtype}>"
        )

    @property
    def manifest(self) -> Manifest:
        """What the set holds: classes, dtype, image shape, normalization, content hash, files."""
        return self._shards.manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names. A label is an index into them."""
        return self._shards.manifest.classes

    @property
    def class_to_idx(self) -> Mapping[str, int]:
        """The class index of each class name, read-only."""
        return MappingProxyType(self._class_to_idx)

    @property
    def targets(self) -> tuple[int, ...]:
        """The class index of each sample. To train on other labels, use `target_transform` or a wrapper."""
        return self._data.targets

    @property
    def sources(self) -> tuple[str, ...]:
        """The file of each sample, as a path within the source. Raises InputError if they don't come from files."""
        return self._data.sources

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean subtracted from each channel, of pixels scaled to [0, 1]."""
        return self._normalization.mean

    @property
    def std(self) -> tuple[float, ...]:
        """The std that each channel is divided by, of pixels scaled to [0, 1]."""
        return self._normalization.std

    def denormalize(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images, (..., C, H, W), back to pixels scaled to [0, 1], up to rounding.

        Returns a new tensor of the same dtype and device. Raises TypeError unless the images are floats.
        """
        if not images.is_floating_point():
            raise TypeError(f"denormalize: images should be normalized floats, got {images.dtype}")
        mean, std = (
            torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1).to(images) for values in (self.mean, self.std)
        )
        return images * std + mean

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the split into new tensors: images, (N, C, H, W) float32 or uint8, and labels, (N,) int64.

        `transform` and `target_transform` are not applied.
        """
        return self._read(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int | list[int]) -> tuple[Any, Any]:
        """Read a sample, or for a list of indices, as a batch sampler gives them, a batch of stacked samples.

        Negative indices count from the end. Raises IndexError for an index that is out of range.
        """
        if isinstance(index, list):
            images, labels = default_collate(self.__getitems__(index))
            return images, labels
        number = as_index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} is out of range for {len(self):,} samples")
        image, label = self._read_sample(number % len(self))
        return (
            self.transform(image) if self.transform else image,
            self.target_transform(label) if self.target_transform else label,
        )

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[Any, Any]]:
        """Read a batch at once. DataLoader calls this where a dataset has it."""
        overridden = type(self).__getitem__ is not ShardDataset.__getitem__
        if overridden or self.transform or self.target_transform:
            return [self[index] for index in indices]
        numbers = np.asarray(indices)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(f"indices should be a sequence of integers, got {numbers.dtype} {numbers.shape}")
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if len(wrong):
            raise IndexError(f"index {wrong[0]} is out of range for {len(self):,} samples")
        return Batch(numbers.astype(np.int64) % max(len(self), 1), self._read_sample, self._read)

    def close(self) -> None:
        """Unmap the files, which Windows can't replace while they are mapped. The dataset is empty afterwards."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_sample(self, number: int) -> Sample:
        stored = self._data.image(number)
        image = stored.copy() if self._is_stored_as_read else self._convert(stored, np.empty(stored.shape, np.float32))
        return Sample(torch.from_numpy(image), int(self._data.labels[number]))

    def _read(self, numbers: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read samples into new tensors: images, (n, C, H, W) float32 or uint8, and labels, (n,) int64."""
        shape = len(numbers), *self.manifest.image_shape
        images = new_tensor(shape, torch.float32 if self._normalize else torch.uint8)
        if self._is_stored_as_read:
            self._data.take(numbers, images.numpy())
        else:
            size = min(self._shards.block_samples, len(numbers))
            stored = np.empty((size, *shape[1:]), self.manifest.dtype)
            for start, stop in split_range(0, len(numbers), size):
                block = self._data.take(numbers[start:stop], stored[: stop - start])
                self._convert(block, images.numpy()[start:stop])
        return images, torch.from_numpy(self._data.labels[numbers])

    @property
    def _is_stored_as_read(self) -> bool:
        return not self._normalize or self.manifest.dtype == "float32"

    def _convert(self, stored: Array, out: NDArray[np.float32]) -> NDArray[np.float32]:
        if stored.dtype == np.uint8:
            return normalize_pixels(stored, self._normalization, out)
        np.copyto(out, stored)  # from float16
        return out
