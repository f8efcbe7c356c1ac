"""Images that occur more than once, bit for bit, found by their digests."""

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.pairs import Indices, Pairs, make_pairs
from shardset.content import Digests
from shardset.manifest import Split


def find_exact_pairs(digests: Mapping[Split, Digests]) -> Pairs:
    """Pair each image with the first equal image of each earlier split, and of its own if that comes before it.

    `digests` holds those of each split's images, (N, 32), in the manifest's order.
    """
    repeated = list(enumerate(_find_repeated([*digests.values()])))
    pairs = []
    for (other_split, (others, other_digests)), (split, (indices, of_split)) in combinations_with_replacement(
        repeated, 2
    ):
        distinct, first = np.unique(other_digests, return_index=True)  # the first of equal ones
        is_found, places = _look_up(of_split, distinct)
        index, other_index = indices[is_found], others[first[places[is_found]]]
        is_pair = (split != other_split) | (index != other_index)
        pairs.append(
            make_pairs(
                split=split,
                index=index[is_pair],
                other_split=other_split,
                other_index=other_index[is_pair],
                distance=0.0,
                mirrored=False,
            )
        )
    return np.concatenate(pairs)


def _find_repeated(digests: list[Digests]) -> list[tuple[Indices, NDArray[np.bytes_]]]:
    """Find the images of each split that may equal another one: their indices, (n,), and digests, (n,) of 32 bytes."""
    # By the first 8 bytes of each digest, because to sort entire digests takes several times their memory.
    starts = [of_split.view(np.uint64)[:, 0] for of_split in digests]
    ordered = np.concatenate(starts)
    ordered.sort()
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    found = []
    for of_split, start in zip(digests, starts, strict=True):
        indices = np.flatnonzero(_look_up(start, repeated)[0])
        found.append((indices, of_split[indices].view("S32")[:, 0]))
    return found


def _look_up(values: NDArray[Any], distinct: NDArray[Any]) -> tuple[NDArray[np.bool_], Indices]:
    """Return which values occur in an ordered array, and where, (n,) each."""
    places = np.searchsorted(distinct, values)
    places[places == len(distinct)] = 0
    is_found = distinct[places] == values if len(distinct) else np.zeros(len(values), np.bool_)
    return is_found, places
