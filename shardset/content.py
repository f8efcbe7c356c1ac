"""`content_sha256`, the identity of a dataset: the same whatever the dtype, the scheme and the shard size.

It is taken over the digest of each sample, not over the concatenated pixels, so that shards can be hashed in parallel
and equal images have equal digests.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BLOCK_SAMPLES = 65_536

Digests = NDArray[np.uint8]  # (N, 32), the SHA-256 of each image's pixels


def hash_images(images: NDArray[np.uint8]) -> Digests:
    """Hash the pixels of each image, (N, C, H, W) uint8 in C order, into (N, 32) uint8."""
    digests = b"".join(hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def hash_content(splits: Iterable[tuple[Digests, NDArray[np.int64]]]) -> str:
    """Hash a dataset, SHA-256 as hex digits.

    `splits` holds, for each split in the manifest's order, the digests of its images and its labels, (N,) int64; a
    split may come in several parts. Each sample contributes the 32 bytes of its digest and its label as 8 bytes,
    little-endian.
    """
    content = hashlib.sha256()
    for digests, labels in splits:
        for start in range(0, len(labels), BLOCK_SAMPLES):
            block = slice(start, start + BLOCK_SAMPLES)
            label_bytes = labels[block].astype("<i8").view(np.uint8).reshape(-1, 8)
            content.update(np.concatenate([digests[block], label_bytes], axis=1).data)
    return content.hexdigest()
