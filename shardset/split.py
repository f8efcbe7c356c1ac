"""A split opened for reading samples by index, from memory-mapped files or from RAM."""

import ctypes
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardset.manifest import Split
from shardset.reader import Array
from shardset.shards import ShardSet

# Images of more pieces are copied one by one, which is then as fast.
MAX_PIECES = 16


class OpenSplit:
    """The images and labels of a split, or of the samples at `indices`, (n,) int64, in that order.

    Its copies and pickles hold no data: they open the files themselves.

    Raises CorruptDataError if a file has the wrong size, dtype or shape, or if the set has been replaced.
    """

    def __init__(self, shards: ShardSet, split: Split, preload: bool, indices: NDArray[np.int64] | None = None) -> None:
        self._arguments = shards, split, preload, indices
        labels = shards.labels(split)
        self.labels = labels if indices is None else labels[indices]
        images = [shards.images(shard) for shard in shards.shards(split)]
        if preload:
            images = [np.concatenate(images) if indices is None else shards.take(split, indices)]
        self._images = images
        self._indices = None if preload else indices  # a copy in RAM holds only these samples
        self._starts = [0, *accumulate(map(len, self._images))][:-1]
        pieces = _Pieces(self._images)
        self._pieces = pieces if pieces.per_image <= MAX_PIECES else None
        shards.check_unchanged()  # also detects a set that was replaced between pickling and unpickling

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """The labels as Python integers."""
        return tuple(self.labels.tolist())

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the files that the samples come from."""
        shards, split, _, indices = self._arguments
        sources = shards.sources(split)
        return sources if indices is None else tuple(sources[index] for index in indices.tolist())

    def image(self, number: int) -> Array:
        """Return a view of one image, (C, H, W) of the manifest's dtype, read-only unless it is in RAM."""
        if self._indices is not None:
            number = int(self._indices[number])
        shard = bisect_right(self._starts, number) - 1
        image: Array = self._images[shard][number - self._starts[shard]]
        return image

    def take(self, numbers: NDArray[np.int64], out: Array) -> Array:
        """Copy images into `out`, (len(numbers), C, H, W) of the manifest's dtype. Negative numbers are not allowed."""
        if self._pieces:
            self._pieces.take(numbers if self._indices is None else self._indices[numbers], out)
            return out
        for image, number in zip(out, numbers.tolist(), strict=True):
            image[...] = self.image(number)
        return out

    def close(self) -> None:
        """Drop the data, which unmaps the files as soon as no read uses them. The split is empty afterwards."""
        self.labels = self.labels[:0]
        self._images, self._starts, self._pieces = [], [], None
        self.__dict__.pop("targets", None)


class _Pieces:
    """The memory from the first shard to the last as one array of pieces, several of which make an image.

    numpy gathers pieces of one array twice as fast as images of several arrays. Reading a piece between two shards may
    crash the process, so nothing else may hold the array or copy it.
    """

    def __init__(self, shards: Sequence[Array]) -> None:
        addresses = [shard.ctypes.data for shard in shards]
        num_bytes = shards[0][0].nbytes
        start = min(addresses)
        stop = max(address + shard.nbytes for address, shard in zip(addresses, shards, strict=True))
        # Shards are a multiple of the page size apart, unless there is only one.
        size = gcd(num_bytes, *(address - start for address in addresses))
        memory = (ctypes.c_byte * (stop - start)).from_address(start)
        memory.shards = shards  # type: ignore[attr-defined]  # keeps them mapped while the array exists
        self._array: Array = np.ndarray(((stop - start) // size, size), np.uint8, memory)  # type: ignore[arg-type]
        self._within = np.arange(num_bytes // size)
        self._first_images = np.cumsum([0, *map(len, shards[:-1])])
        self._first_pieces = (np.array(addresses) - start) // size

    @property
    def per_image(self) -> int:
        return len(self._within)

    def take(self, numbers: NDArray[np.int64], out: Array) -> None:
        shards = np.searchsorted(self._first_images, numbers, "right") - 1
        firsts = self._first_pieces[shards] + (numbers - self._first_images[shards]) * self.per_image
        pieces = out.reshape(-1).view(np.uint8).reshape(*firsts.shape, self.per_image, -1)
        # Modes other than "clip" make a copy of `out`.
        self._array.take(firsts[:, None] + self._within, axis=0, out=pieces, mode="clip")
