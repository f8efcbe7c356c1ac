"""The limits of params.yaml on what the audit may find."""

import numpy as np

from pipeline.audit.lists import PairTable
from pipeline.audit.pairs import Pairs, name_pair, number_images
from pipeline.errors import PipelineError
from shardset.manifest import Split

NUM_LISTED = 20
WAYS_OUT = (
    "All pairs are in data/audit/near_duplicates.csv. Remove images, list pairs that are not duplicates in the file of "
    "audit.ignore, or raise the limit in params.yaml."
)


def check_limits(pairs: PairTable, exact: Pairs, limits: dict[str, int | None]) -> None:
    """Raise PipelineError, which lists what was found, if that is more than a limit allows.

    `limits` are those of params.yaml by key, None for no limit.
    """
    closest = pairs.select(np.argsort(pairs.rows["distance"], kind="stable"))
    train = pairs.splits.index("train")
    is_leak = (closest.rows["other_split"] == train) & (closest.rows["split"] != train)
    found = {
        "max_leaked": _one_per_image(closest.rows[is_leak]),
        "max_exact_duplicates": _one_per_image(exact),
        "max_label_conflicts": closest.rows[closest.is_conflict],
    }
    problems = [
        _describe(key, limit, pairs.splits, found[key])
        for key, limit in limits.items()
        if limit is not None and len(found[key]) > limit
    ]
    if problems:
        raise PipelineError("\n".join([*problems, WAYS_OUT]))


def _one_per_image(pairs: Pairs) -> Pairs:
    """Keep the first pair of each image that comes later in its pair."""
    _, first = np.unique(number_images(pairs)[0], return_index=True)
    return pairs[np.sort(first)]


def _describe(key: str, limit: int, splits: tuple[Split, ...], pairs: Pairs) -> str:
    named = [name_pair(splits, row) for row in pairs[:NUM_LISTED].tolist()]
    lines = [
        f"  {pair.split} {pair.index} and {pair.other_split} {pair.other_index}, distance {pair.distance}"
        for pair in named
    ]
    if len(pairs) > NUM_LISTED:
        lines.append(f"  and {len(pairs) - NUM_LISTED:,} more")
    return "\n".join([f"audit.{key}: expected at most {limit:,}, got {len(pairs):,}:", *lines])
