"""A generated dataset in the shape of CIFAR-10, for machines without network and for tests.

It is learnable: each class has its own pattern, and every image shows it shifted and with noise. All arithmetic is on
integers, and all randomness comes from the raw stream of PCG64, which numpy promises not to change, so the bytes are
the same on every machine.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shardset.manifest import Split
from shardset.reader import Array, Labels

CLASSES = tuple(f"pattern_{index}" for index in range(10))
NUM_SAMPLES: dict[Split, int] = {"train": 12_000, "test": 2_000}
SEED = 32

_BLOCK_SAMPLES = 500


def generate(
    num_samples: Mapping[Split, int] = NUM_SAMPLES,
) -> tuple[dict[Split, Array], dict[Split, Labels], tuple[str, ...]]:
    """Generate images, (N, 3, 32, 32) uint8, and labels, (N,) int64, of each split, and the class names.

    Classes are balanced.
    """
    source = np.random.PCG64(SEED)
    patterns = _draw(source, len(CLASSES) * 3 * 8 * 8).reshape(-1, 3, 8, 8).repeat(4, axis=2).repeat(4, axis=3)
    # Red, green and blue differ in range, so that statistics tell them apart.
    patterns = patterns // np.array([1, 2, 3], np.uint8)[:, None, None] + np.array([0, 64, 16], np.uint8)[:, None, None]
    images: dict[Split, Array] = {}
    labels: dict[Split, Labels] = {}
    for split, count in num_samples.items():
        images[split], labels[split] = _generate_split(source, patterns, count)
    return images, labels, CLASSES


def _generate_split(source: np.random.PCG64, patterns: Array, num_samples: int) -> tuple[Array, Labels]:
    labels = np.argsort(source.random_raw(num_samples), kind="stable").astype(np.int64) % len(patterns)
    images = np.empty((num_samples, *patterns.shape[1:]), np.uint8)
    for start in range(0, num_samples, _BLOCK_SAMPLES):
        images[start : start + _BLOCK_SAMPLES] = _generate_images(
            source, patterns, labels[start : start + _BLOCK_SAMPLES]
        )
    return images, labels


def _generate_images(source: np.random.PCG64, patterns: Array, labels: Labels) -> Array:
    _, num_channels, height, width = patterns.shape
    row_shift, column_shift, weight = _draw(source, 3 * len(labels)).reshape(3, -1, 1, 1, 1)
    shifted = patterns[
        labels[:, None, None, None],
        np.arange(num_channels)[:, None, None],
        (np.arange(height)[:, None] + row_shift % 8) % height,
        (np.arange(width) + column_shift % 8) % width,
    ].astype(np.uint16)
    noise = _draw(source, shifted.size).reshape(shifted.shape)
    pattern_weight = 96 + weight % 64  # of 256
    mixed: NDArray[np.uint16] = shifted * pattern_weight + noise * (256 - pattern_weight.astype(np.uint16))
    return (mixed >> 8).astype(np.uint8)


def _draw(source: np.random.PCG64, num_bytes: int) -> Array:
    words: NDArray[np.uint64] = source.random_raw(-(-num_bytes // 8))
    return words.astype("<u8").view(np.uint8)[:num_bytes]
