"""What the stage `audit` finds in a small raw shard set, with near-duplicates that a test makes up."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.audit.details import Details
from pipeline.audit.exact_duplicates import find_exact_pairs
from pipeline.audit.figures import make_details
from pipeline.audit.lists import LeftOut, ListedPair, PairTable, list_pairs
from pipeline.audit.pairs import PAIR, Pair, Pairs, name_pair
from pipeline.audit.shard_survey import read_digests, survey_shards
from pipeline.audit.survey import Survey, read_survey
from pipeline.runtime.resume import open_step
from pipeline.runtime.tasks import map_tasks
from shardset.content import Digests
from shardset.manifest import SPLITS, Split
from shardset.shards import ShardSet

NOTHING_LEFT_OUT = LeftOut(0, 0)


def survey_set(raw: ShardSet) -> tuple[dict[Split, Survey], dict[Split, Digests]]:
    """Survey a raw shard set, and read the digests of its images."""
    with TemporaryDirectory() as work_dir:
        step = open_step(Path(work_dir), "survey")
        survey_shards(raw, step, map_tasks)
        surveys = {split: read_survey(raw, step, split) for split in raw.manifest.splits}
        return surveys, {split: read_digests(raw, step, split) for split in raw.manifest.splits}


def survey(raw: ShardSet) -> dict[Split, Survey]:
    return survey_set(raw)[0]


def tabulate(pairs: Iterable[Pair], splits: tuple[Split, ...] = SPLITS) -> Pairs:
    """Make the rows of PAIR for pairs of images of a set with these splits."""
    return np.array(
        [
            (splits.index(of.split), of.index, splits.index(of.other_split), of.other_index, of.distance, of.mirrored)
            for of in pairs
        ],
        PAIR,
    )


def name_pairs(pairs: Pairs, splits: tuple[Split, ...] = SPLITS) -> list[Pair]:
    """Turn rows of PAIR into pairs."""
    return [name_pair(splits, row) for row in pairs.tolist()]


def list_with(raw: ShardSet, digests: dict[Split, Digests], near: Iterable[Pair]) -> tuple[Pairs, PairTable]:
    """Find the exact pairs of a raw set, and list them with `near`."""
    exact = find_exact_pairs(digests)
    found = np.concatenate([tabulate(near, tuple(raw.manifest.splits)), exact])
    return exact, list_pairs(raw, found, digests, set())[0]


def audit_with(
    raw: ShardSet, near: Iterable[Pair] = (), left_out: LeftOut = NOTHING_LEFT_OUT
) -> tuple[Details, list[ListedPair]]:
    """Survey a raw shard set, with `near` instead of a search."""
    surveys, digests = survey_set(raw)
    exact, pairs = list_with(raw, digests, near)
    return make_details(raw, surveys, exact, pairs, left_out), list(pairs)


def make_pair(image, other, distance=0.1, *, mirrored=False) -> Pair:
    """Make a pair of two images, such as ("test", 3) and ("train", 0)."""
    (split, index), (other_split, other_index) = image, other
    return Pair(split, index, other_split, other_index, distance, mirrored)


def list_made_pairs(*distances, split="test", other_split="train", labels=("a", "a"), cluster=None, first=0):
    """Make listed pairs of one kind, by distance, each a cluster of its own unless `cluster` is given."""
    return [
        ListedPair(
            pair=make_pair((split, index), (other_split, index), distance),
            label=labels[0],
            other_label=labels[1],
            cluster=index if cluster is None else cluster,
            id=f"{index:016x}",
        )
        for index, distance in enumerate(distances, first)
    ]
