"""Pairs of near-duplicates, and the groups of images that they connect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardset.manifest import SPLITS, Split

# An image and an earlier near-duplicate, as in `Pair`. A split is its place among those of the set.
PAIR = np.dtype(
    [
        ("split", "u1"),
        ("index", "<i8"),
        ("other_split", "u1"),
        ("other_index", "<i8"),
        ("distance", "<f8"),
        ("mirrored", "?"),
    ]
)
Pairs = NDArray[np.void]  # rows of PAIR, (N,)
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """An image and an earlier near-duplicate, of the same split or of an earlier one.

    `distance` is 0 for equal edges, 1 for unrelated ones. `mirrored` tells whether one is like the mirror image of the
    other.
    """

    split: Split
    index: int
    other_split: Split
    other_index: int
    distance: float
    mirrored: bool


def make_pairs(**columns: object) -> Pairs:
    """Make rows of PAIR from its columns, (N,) or a value for all rows."""
    arrays = np.broadcast_arrays(*(np.asarray(columns[name]) for name in PAIR.names or ()))
    pairs = np.empty(arrays[0].shape, PAIR)
    for name, column in zip(PAIR.names or (), arrays, strict=True):
        pairs[name] = column
    return pairs


def name_pair(splits: Sequence[Split], row: Sequence[Any]) -> Pair:
    """Turn the values of a row of PAIR into a Pair, with the names of its splits."""
    return Pair(splits[row[0]], row[1], splits[row[2]], row[3], row[4], row[5])


def number_images(pairs: Pairs) -> tuple[Indices, Indices]:
    """Return a number for each image of each pair, (N,) for the later ones and (N,) for the earlier ones."""
    return (
        pairs["index"] * len(SPLITS) + pairs["split"],
        pairs["other_index"] * len(SPLITS) + pairs["other_split"],
    )


def find_clusters(pairs: Pairs) -> Indices:
    """Return the number of the cluster of each pair: connected components, numbered from 0 by first appearance."""
    images, ends = np.unique(np.concatenate(number_images(pairs)), return_inverse=True)
    first, second = ends[: len(pairs)], ends[len(pairs) :]
    # Each image points to an earlier one of its cluster or to itself. All pairs at once join what they connect, by
    # letting the later root point to the earlier one, and then all images point to their roots again.
    parents = np.arange(len(images))
    while (parents[first] != parents[second]).any():
        roots = parents[first], parents[second]
        np.minimum.at(parents, np.maximum(*roots), np.minimum(*roots))
        while (parents != parents[parents]).any():
            parents = parents[parents]
    _, appearances, clusters = np.unique(parents[first], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearances))[clusters]
