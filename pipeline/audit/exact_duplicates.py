"""Images that occur more than once, bit for bit, found by their digests."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from shardset.content import Digests
from shardset.manifest import Split


def count_exact_duplicates(digests: Mapping[Split, Digests]) -> dict[str, int]:
    """Count images that equal an earlier one of their split ("train"), or one of an earlier split ("test_in_train").

    `digests` holds those of each split's images, (N, 32).
    """
    counts = {split: Counter(map(bytes, of_split)) for split, of_split in digests.items()}
    duplicates: dict[str, int] = {split: of_split.total() - len(of_split) for split, of_split in counts.items()}
    for earlier, later in combinations(counts, 2):
        duplicates[f"{later}_in_{earlier}"] = sum(
            count for digest, count in counts[later].items() if digest in counts[earlier]
        )
    return duplicates
