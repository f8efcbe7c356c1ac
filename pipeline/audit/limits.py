"""The limits of params.yaml on what the audit may find."""

from collections.abc import Iterable, Sequence

from pipeline.audit.lists import ListedPair
from pipeline.audit.pairs import Pair
from pipeline.errors import PipelineError

NUM_LISTED = 20
WAYS_OUT = (
    "All pairs are in data/audit/near_duplicates.csv. Remove images, list pairs that are not duplicates in the file of "
    "audit.ignore, or raise the limit in params.yaml."
)


def check_limits(pairs: Sequence[ListedPair], exact: Iterable[Pair], limits: dict[str, int | None]) -> None:
    """Raise PipelineError, which lists what was found, if that is more than a limit allows.

    `limits` are those of params.yaml by key, None for no limit.
    """
    closest = sorted(pairs, key=lambda of: of.pair.distance)
    found = {
        "max_leaked": _one_per_image(of.pair for of in closest if of.is_leak),
        "max_exact_duplicates": _one_per_image(exact),
        "max_label_conflicts": [of.pair for of in closest if of.is_conflict],
    }
    problems = [
        _describe(key, limit, found[key])
        for key, limit in limits.items()
        if limit is not None and len(found[key]) > limit
    ]
    if problems:
        raise PipelineError("\n".join([*problems, WAYS_OUT]))


def _one_per_image(pairs: Iterable[Pair]) -> list[Pair]:
    first: dict[tuple[str, int], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.split, pair.index), pair)
    return list(first.values())


def _describe(key: str, limit: int, pairs: Sequence[Pair]) -> str:
    lines = [
        f"  {pair.split} {pair.index} and {pair.other_split} {pair.other_index}, distance {pair.distance}"
        for pair in pairs[:NUM_LISTED]
    ]
    if len(pairs) > NUM_LISTED:
        lines.append(f"  and {len(pairs) - NUM_LISTED:,} more")
    return "\n".join([f"audit.{key}: expected at most {limit:,}, got {len(pairs):,}:", *lines])
