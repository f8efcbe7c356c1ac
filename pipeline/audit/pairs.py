"""Pairs of near-duplicates, and the groups of images that they connect."""

from collections.abc import Sequence
from dataclasses import dataclass

from shardset.manifest import Split


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


def find_clusters(pairs: Sequence[Pair]) -> list[int]:
    """Return the number of the cluster of each pair: connected components, numbered from 0 by first appearance."""
    parents: dict[tuple[Split, int], tuple[Split, int]] = {}

    def find_root(image: tuple[Split, int]) -> tuple[Split, int]:
        parents.setdefault(image, image)
        while parents[image] != image:
            parents[image] = parents[parents[image]]
            image = parents[image]
        return image

    for pair in pairs:
        parents[find_root((pair.split, pair.index))] = find_root((pair.other_split, pair.other_index))
    numbers: dict[tuple[Split, int], int] = {}
    return [numbers.setdefault(find_root((pair.split, pair.index)), len(numbers)) for pair in pairs]
