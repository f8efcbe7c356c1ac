"""`ShardDataset`: a split of a shard set as a dataset for torch's DataLoader."""

import ctypes
from collections.abc import Callable, Sequence
from math import gcd
from operator import index as as_index
from os import PathLike
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from shardset.errors import InputError
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of, normalize_pixels
from shardset.shards import Array, open_shards

Verify = Literal["size", "hash"]


class ShardDataset(Dataset):  # type: ignore[misc]  # mypy doesn't follow torch's imports
    """A split as (image, label) pairs: a normalized float32 tensor (C, H, W) and the class index, an int.

    From float32 and uint8 shards, sample i equals that of torchvision's dataset with `ToTensor()` and
    `Normalize(mean, std)` bit for bit; from float16 shards it is rounded. Raw pixels are scaled to [0, 1].

    `transform` and `target_transform` are called with each image and each label, as in torchvision.

    Images are read from memory-mapped files, or from a copy in RAM with `preload`. A pickled dataset contains no
    images: a spawned worker maps the files itself, and refuses a set that was replaced since.

    `verify="hash"` compares every byte of the split with the manifest and rejects files that it doesn't list.
    `verify="size"` and None check only the size, dtype and shape of each file, since mapping a file that is too short
    would crash the process.

    Raises CorruptDataError, which names the file, or InputError for an unknown `split` or `verify`.
    """

    def __init__(
        self,
        shards_dir: str | PathLike[str],
        split: Split = "train",
        *,
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        preload: bool = False,
        verify: Verify | None = "size",
    ) -> None:
        self._shards = shards = open_shards(shards_dir)
        splits = tuple(shards.manifest.splits)
        for name, value, allowed in (("split", split, splits), ("verify", verify, (*get_args(Verify), None))):
            if value not in allowed:
                raise InputError(f"{name}: should be one of {', '.join(map(repr, allowed))}, got {value!r}")
        self.split = split
        self.transform = transform
        self.target_transform = target_transform
        self._preload = preload
        if verify == "hash":
            others = [shard for other in splits if other != split for shard in shards.shards(other)]
            shards.verify(exclude={file for shard in others for file in (shard.images, shard.labels)})
        self._normalization = normalization_of(shards.manifest)
        self._open()

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"<ShardDataset {manifest.dataset} {self.split}: {len(self):,} samples, "
            f"{tuple(manifest.image_shape)} {manifest.dtype}>"
        )

    def _open(self) -> None:
        shards = self._shards
        self._labels = shards.labels(self.split)
        if self._preload:
            images = [shards.take(self.split, np.arange(len(self._labels)))]
        else:
            images = [shards.images(shard) for shard in shards.shards(self.split)]
        self._rows, self._row_of_sample = _as_rows(images)
        shards.check_unchanged()  # also detects a set that was replaced between pickling and unpickling

    @property
    def manifest(self) -> Manifest:
        """What the set holds: classes, dtype, image shape, normalization, content hash, files."""
        return self._shards.manifest

    @property
    def classes(self) -> list[str]:
        return list(self._shards.manifest.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @property
    def targets(self) -> list[int]:
        """The class index of each sample."""
        targets: list[int] = self._labels.tolist()
        return targets

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean subtracted from each channel, of pixels scaled to [0, 1]."""
        return self._normalization.mean

    @property
    def std(self) -> tuple[float, ...]:
        """The std that each channel is divided by, of pixels scaled to [0, 1]."""
        return self._normalization.std

    def denormalize(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images, (..., C, H, W), back to pixels scaled to [0, 1], up to rounding."""
        mean, std = (torch.tensor(values).reshape(-1, 1, 1).to(images) for values in (self.mean, self.std))
        return images * std + mean

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self._read_samples([as_index(index)])[0]
        return image, label

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[Any, Any]]:
        """Read a batch at once. DataLoader calls this where a dataset has it."""
        if type(self).__getitem__ is not ShardDataset.__getitem__:  # a subclass overrides __getitem__
            return [self[index] for index in indices]
        return self._read_samples(indices)

    def _read_samples(self, indices: Sequence[int]) -> Sequence[tuple[Any, Any]]:
        numbers = np.asarray(indices)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise TypeError(f"indices should be integers, got {numbers.dtype}")
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if len(wrong):
            raise IndexError(f"index {wrong[0]} is out of range for {len(self):,} samples")
        numbers = numbers.astype(np.int64) % len(self)
        batch = _Batch(self._read(numbers), torch.from_numpy(self._labels[numbers]))
        if not (self.transform or self.target_transform):
            return batch
        transform, target_transform = self.transform or _same, self.target_transform or _same
        return [(transform(image), target_transform(label)) for image, label in batch]

    def close(self) -> None:
        """Unmap the files, which Windows can't replace while they are mapped. The dataset is empty afterwards."""
        self._rows = self._rows[:0].clone()
        self._labels = self._labels[:0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_labels", "_rows", "_row_of_sample")
        return {name: value for name, value in self.__dict__.items() if name not in opened} | {"_preload": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Workers don't repeat the verification.
        self.__dict__.update(state)
        self._open()

    def _read(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """Read images into a new tensor, (n, C, H, W) float32."""
        rows = self._rows.index_select(0, torch.from_numpy(self._row_of_sample[numbers]))
        images = rows.reshape(-1, *self._shards.manifest.image_shape)
        if images.dtype != torch.uint8:
            return images.float()
        pixels = images.numpy()
        return torch.from_numpy(normalize_pixels(pixels, self._normalization, np.empty(pixels.shape, np.float32)))


def _as_rows(shards: Sequence[Array]) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """View all shards, (N, C, H, W) each, as one tensor with one image per row, and return the row of each sample.

    The tensor spans the memory from the first shard to the last, so most of its rows overlap and hold no image. torch
    gathers rows of one tensor several times faster than rows of one tensor per shard.
    """
    num_bytes = shards[0][0].nbytes
    start = min(shard.ctypes.data for shard in shards)
    stop = max(shard.ctypes.data + shard.nbytes for shard in shards)
    # Shards are whole pages apart, unless there is only one.
    step = gcd(num_bytes, *(shard.ctypes.data - start for shard in shards))
    memory = (ctypes.c_byte * (stop - start)).from_address(start)
    memory.shards = shards  # type: ignore[attr-defined]  # keeps them mapped while the tensor exists
    dtype = torch.from_numpy(np.empty(0, shards[0].dtype)).dtype
    row_of_sample = [
        (shard.ctypes.data - start + np.arange(len(shard), dtype=np.int64) * num_bytes) // step for shard in shards
    ]
    rows = torch.frombuffer(memory, dtype=dtype).as_strided(
        ((stop - start - num_bytes) // step + 1, num_bytes // shards[0].itemsize), (step // shards[0].itemsize, 1)
    )
    return rows, np.concatenate(row_of_sample)


class _Sample(tuple[torch.Tensor, int]):
    """A pair that `default_collate` recognizes as part of a `_Batch`."""

    __slots__ = ()


class _Batch(Sequence[_Sample]):
    """Samples held in two tensors, which `default_collate` returns as they are instead of stacking images."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 (a slice too)
        if isinstance(index, slice):
            return _Batch(self.images[index], self.labels[index])
        return _Sample((self.images[index], int(self.labels[index])))


def _collate(batch: Sequence[_Sample], *, collate_fn_map: dict[Any, Any] | None = None) -> list[torch.Tensor]:
    if isinstance(batch, _Batch):
        return [batch.images, batch.labels]
    return [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)]


default_collate_fn_map[_Sample] = _collate


def _same(value: Any) -> Any:  # noqa: ANN401
    return value
