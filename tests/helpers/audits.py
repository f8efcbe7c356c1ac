"""What the stage `audit` finds in a small raw shard set, with near-duplicates that a test makes up."""

from collections.abc import Iterable

from pipeline.audit.details import Details
from pipeline.audit.exact_duplicates import find_exact_pairs
from pipeline.audit.figures import make_details
from pipeline.audit.lists import LeftOut, ListedPair, list_pairs
from pipeline.audit.pairs import Pair
from pipeline.audit.survey import survey_splits
from shardset.shards import ShardSet

NOTHING_LEFT_OUT = LeftOut(0, 0)


def audit_with(
    raw: ShardSet, near: Iterable[Pair] = (), left_out: LeftOut = NOTHING_LEFT_OUT
) -> tuple[Details, list[ListedPair]]:
    """Survey a raw shard set, with `near` instead of a search."""
    surveys = survey_splits(raw, lambda *_: None, lambda *_: None)
    digests = {split: survey.digests for split, survey in surveys.items()}
    exact = find_exact_pairs(digests)
    pairs, _ = list_pairs(raw, [*near, *exact], digests, set())
    return make_details(raw, surveys, exact, pairs, left_out), pairs


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
