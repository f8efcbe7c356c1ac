"""Images that occur more than once, bit for bit, found by their digests."""

from collections.abc import Mapping
from itertools import combinations_with_replacement

from pipeline.audit.pairs import Pair
from shardset.content import Digests
from shardset.manifest import Split


def find_exact_pairs(digests: Mapping[Split, Digests]) -> list[Pair]:
    """Pair each image with the first equal image of each earlier split, and of its own if that comes before it.

    `digests` holds those of each split's images, (N, 32), in the manifest's order.
    """
    pairs = []
    for other_split, split in combinations_with_replacement(digests, 2):
        first: dict[bytes, int] = {}
        for index, digest in enumerate(map(bytes, digests[other_split])):
            first.setdefault(digest, index)
        for index, digest in enumerate(map(bytes, digests[split])):
            if digest in first and (split, index) != (other_split, first[digest]):
                pairs.append(Pair(split, index, other_split, first[digest], 0.0, mirrored=False))
    return pairs
