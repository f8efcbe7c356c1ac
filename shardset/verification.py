"""Comparing the files of one shard with the manifest, as a task for threads or a cluster."""

from dataclasses import dataclass

import numpy as np

from shardset.content import Digests, hash_images
from shardset.errors import CorruptDataError
from shardset.manifest import SetFile, Shard
from shardset.reader import ShardReader

NO_DIGESTS = np.empty((0, 32), np.uint8)


@dataclass(frozen=True)
class ShardCheck:
    """A shard, and which of its files to compare with the manifest. It is small, so that a cluster can carry it.

    `with_digests` also hashes each image of a uint8 shard.
    """

    reader: ShardReader
    shard: Shard
    files: tuple[SetFile, ...]
    num_classes: int
    with_digests: bool


@dataclass(frozen=True)
class CheckedShard:
    """What is wrong with a shard, and the digests of its images if they were asked for, else (0, 32)."""

    problems: list[str]
    digests: Digests


def check_shard(check: ShardCheck) -> CheckedShard:
    """Compare every byte of the files, and labels with the number of classes. Raises OSError, which names the file."""
    problems, digests = [], [NO_DIGESTS]
    for file in check.files:
        try:
            if file == check.shard.labels:
                problems += _find_wrong_labels(check)
            else:
                blocks = check.reader.verified_image_blocks(check.shard)
                digests += [hash_images(block) if check.with_digests else NO_DIGESTS for block in blocks]
        except CorruptDataError as error:
            problems.append(str(error))
    return CheckedShard(problems, np.concatenate(digests))


def _find_wrong_labels(check: ShardCheck) -> list[str]:
    path = check.reader.dir / check.shard.labels.path
    for block in check.reader.verified_label_blocks(check.shard):
        if block.min() < 0 or block.max() >= check.num_classes:
            return [f"{path}: labels should be in [0, {check.num_classes})"]
    return []
