"""Candidates: for each image the earlier ones of a split whose descriptors resemble its own most.

All similarities are integers that float32 holds exactly, so the candidates are the same on every machine, although a
matrix product finds them.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.descriptors import EXACT_SUM, count_even
from pipeline.audit.search_index import ROWS_PER_READ, SearchIndex
from shardset.manifest import Split
from shardset.reader import Array, split_range

NUM_CANDIDATES = 8
MIN_SIMILARITY = 0.6  # of candidates, in [-1, 1]
MAX_QUERIES = 1024
ROWS_PER_PRODUCT = 128  # images compared with ROWS_PER_READ others at once: 0.5 MB, which stay in cache

# A candidate is one integer, since these sort fast: its row, its rank by similarity, its index.
RANK_BITS, INDEX_BITS = 25, 28

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def find_candidates(
    index: SearchIndex, split: Split, start: int, stop: int, other_split: Split
) -> tuple[Indices, Indices]:
    """Find the most similar images of `other_split`, among the earlier ones, for images [start, stop) of a split.

    There are at most MAX_QUERIES of these. Returns their rows, from 0, and the indices of their candidates, each (n,),
    ordered by both. Each image has at most NUM_CANDIDATES. Ties go to the lower index.
    """
    queries = _split_parts(index, index.descriptors.read(split, start, stop))
    num_others = stop - 1 if split == other_split else index.num_images[other_split]
    keys = np.empty(0, np.int64)
    thresholds = np.full(stop - start, MIN_SIMILARITY * EXACT_SUM, np.float32)
    similarities = np.empty((stop - start, ROWS_PER_READ), np.float32)
    is_near = np.empty((stop - start, ROWS_PER_READ), np.bool_)
    for first, end in split_range(0, num_others, ROWS_PER_READ):
        # Transposed in memory, which makes the products a tenth faster.
        parts = _split_parts(index, index.descriptors.read(other_split, first, end))
        others = np.ascontiguousarray(parts[0].T), np.ascontiguousarray(parts[1].T)
        # As indices only rise, an equal similarity is never better.
        is_near[:, end - first :] = False
        _compare(queries, others, thresholds, similarities[:, : end - first], is_near[:, : end - first])
        if split == other_split and end > start:  # only earlier images
            is_near[:, : end - first] &= np.arange(first, end) < np.arange(start, stop)[:, None]
        rows, columns = _find_true(is_near)
        if len(rows):
            ranks = EXACT_SUM - similarities[rows, columns].astype(np.int64)
            found = (rows << (RANK_BITS + INDEX_BITS)) | (ranks << INDEX_BITS) | (first + columns)
            keys = _keep_best(np.concatenate([keys, found]), thresholds)
    rows, indices = keys >> (RANK_BITS + INDEX_BITS), keys & ((1 << INDEX_BITS) - 1)
    order = np.lexsort((indices, rows))
    return rows[order], indices[order]


def _split_parts(index: SearchIndex, descriptors: Array) -> tuple[Floats, Floats]:
    """Return the even and the odd parts of descriptors, (n, D) float32."""
    values, num_even = descriptors.astype(np.float32), count_even(index.image_shape[0])
    return values[:, :num_even], values[:, num_even:]


def _compare(
    queries: tuple[Floats, Floats],
    others: tuple[Floats, Floats],
    thresholds: Floats,
    similarities: Floats,
    is_near: NDArray[np.bool_],
) -> None:
    """Compute the similarities of queries (n, D) and others (D, m), and which are above the thresholds of the queries.

    Both are given as even and odd parts; the results are written into `similarities` and `is_near`, (n, m).
    """
    odd = np.empty((ROWS_PER_PRODUCT, similarities.shape[1]), np.float32)
    for first, last in split_range(0, len(similarities), ROWS_PER_PRODUCT):
        rows, odd_rows = similarities[first:last], odd[: last - first]
        np.matmul(queries[0][first:last], others[0], out=rows)
        np.matmul(queries[1][first:last], others[1], out=odd_rows)
        rows += np.abs(odd_rows, out=odd_rows)
        np.greater(rows, thresholds[first:last, None], out=is_near[first:last])


def _find_true(values: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Find the rows and columns of the few true values. Looking at 64 at once is ten times as fast as np.nonzero."""
    packed = np.packbits(values)
    words = np.flatnonzero(packed.view(np.uint64))
    of_words, within = np.nonzero(np.unpackbits(packed.reshape(-1, 8)[words], axis=1).view(np.bool_))
    rows, columns = np.divmod(words[of_words] * 64 + within, values.shape[1])
    return rows, columns


def _keep_best(keys: Indices, thresholds: Floats) -> Indices:
    """Keep the best NUM_CANDIDATES keys of each row, and raise the thresholds of rows that have as many."""
    keys = np.sort(keys)
    rows = keys >> (RANK_BITS + INDEX_BITS)
    places = np.arange(len(keys)) - np.searchsorted(rows, rows)
    last = keys[places == NUM_CANDIDATES - 1]
    ranks = (last >> INDEX_BITS) & ((1 << RANK_BITS) - 1)
    thresholds[last >> (RANK_BITS + INDEX_BITS)] = EXACT_SUM - ranks
    return keys[places < NUM_CANDIDATES]
