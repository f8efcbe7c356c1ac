"""Batches that `default_collate` turns into tensors without stacking samples."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import collate, default_collate_fn_map


class Sample(NamedTuple):
    """An image and its label. A NamedTuple, so that torch's and JAX's pytrees see its two parts."""

    image: torch.Tensor
    label: int


torch.serialization.add_safe_globals([Sample])  # a saved sample loads with `weights_only`


class Batch(Sequence[Sample]):
    """Samples that `default_collate` reads at once, into two tensors. Anything else gets each sample on its own.

    `read_sample` reads a sample by its number. `read_batch` reads several into new tensors, images and labels.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        read_sample: Callable[[int], Sample],
        read_batch: Callable[[NDArray[np.int64]], tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        self._numbers = numbers
        self._read_sample = read_sample
        self._read_batch = read_batch
        self._samples: dict[int, Sample] = {}  # by position, those that were asked for

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 (a slice too)
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        position = range(len(self))[index]
        if position not in self._samples:
            self._samples[position] = self._read_sample(int(self._numbers[position]))
        return self._samples[position]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def collate(self) -> list[torch.Tensor]:
        images, labels = self._read_batch(self._numbers)
        for position, sample in self._samples.items():
            images[position] = sample.image  # it may have been changed in place
        return [images, labels]


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return an uninitialized tensor, in shared memory if this is a worker process of a DataLoader."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # As in `default_collate`: a batch that is made in shared memory needs no copy, and an error while it is allocated
    # reaches the loader. An error of the thread that would copy it later is lost, and the loader waits indefinitely.
    storage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # noqa: SLF001
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)


def _collate(batch: Sequence[Sample], *, collate_fn_map: dict[Any, Any] | None = None) -> list[torch.Tensor]:
    if isinstance(batch, Batch):
        return batch.collate()
    return [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)]


default_collate_fn_map[Sample] = _collate
