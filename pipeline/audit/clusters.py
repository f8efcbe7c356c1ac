"""Groups of images that pairs of near-duplicates connect."""

from collections.abc import Sequence

from pipeline.audit.near_duplicates import Pair
from shardset.manifest import Split


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
