"""The pairs of near-duplicates as they are listed: exact ones added, judged ones left out, numbered by cluster."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.audit.pairs import Pair, find_clusters
from pipeline.runtime.files import escape_formula
from shardset.content import Digests
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Split
from shardset.shards import ShardSet

NEAR_DUPLICATES_NAME = "near_duplicates.csv"
COLUMNS = (
    *("split", "index", "other_split", "other_index", "distance", "mirrored"),
    *("label", "other_label", "cluster", "pair"),
)
ID_DIGITS = 16


@dataclass(frozen=True)
class ListedPair:
    """A pair with the class name of each image, the number of its cluster, and what its pixels are known by.

    `id`, 16 hex digits, follows from the pixels of both images alone. So a pair that was judged stays judged when
    images are added, removed or moved to another split.
    """

    pair: Pair
    label: str
    other_label: str
    cluster: int
    id: str

    @property
    def is_leak(self) -> bool:
        """Whether an image of another split has a near-duplicate in train."""
        return self.pair.other_split == "train" != self.pair.split

    @property
    def is_twin(self) -> bool:
        """Whether both images are in the same split."""
        return self.pair.split == self.pair.other_split

    @property
    def is_conflict(self) -> bool:
        """Whether the labels differ."""
        return self.label != self.other_label


@dataclass(frozen=True)
class LeftOut:
    """How many pairs were left out because people judged them not to be duplicates, and how many with other labels."""

    pairs: int
    conflicts: int


def list_pairs(
    raw: ShardSet, found: Iterable[Pair], digests: Mapping[Split, Digests], ignored: AbstractSet[str]
) -> tuple[list[ListedPair], LeftOut]:
    """List pairs in the order of their splits and indices, each once at its least distance.

    Pairs whose id is in `ignored` are left out, and counted.
    """
    closest: dict[tuple[Split, int, Split, int], Pair] = {}
    for pair in sorted(found, key=lambda pair: pair.distance):
        closest.setdefault((pair.split, pair.index, pair.other_split, pair.other_index), pair)
    order = {split: number for number, split in enumerate(raw.manifest.splits)}
    pairs = sorted(
        closest.values(),
        key=lambda pair: (order[pair.split], pair.index, order[pair.other_split], pair.other_index),
    )
    ids = {pair: _pair_id(pair, digests) for pair in pairs}
    kept = [pair for pair in pairs if ids[pair] not in ignored]
    clusters = dict(zip(kept, find_clusters(kept), strict=True))
    listed = _with_labels(raw, ((pair, clusters.get(pair, -1), ids[pair]) for pair in pairs))
    left_out = [of for of in listed if of.id in ignored]
    return [of for of in listed if of.id not in ignored], LeftOut(
        pairs=len(left_out), conflicts=sum(of.is_conflict for of in left_out)
    )


def lists_to_keep(raw: ShardSet, pairs: Sequence[ListedPair]) -> dict[str, list[tuple[object, ...]]]:
    """Make the rows of the lists to act on, by file name, as `ShardDataset` takes them, the header first."""
    lists: dict[str, list[tuple[object, ...]]] = {}
    for split, of_split in raw.manifest.splits.items():
        dropped = find_twins(pairs, split) if split == "train" else find_leaked(pairs, split)
        name = f"{split}_without_{'twins' if split == 'train' else 'leaks'}.csv"
        kept = ((split, index) for index in range(of_split.samples) if index not in dropped)
        lists[name] = [("split", "index"), *kept]
    return lists


def find_leaked(pairs: Iterable[ListedPair], split: Split) -> set[int]:
    """Find the images of a split other than train that have a near-duplicate in train, by index."""
    return {of.pair.index for of in pairs if of.is_leak and of.pair.split == split}


def find_twins(pairs: Iterable[ListedPair], split: Split) -> set[int]:
    """Find the images that have an earlier near-duplicate in the same split, by index."""
    return {of.pair.index for of in pairs if of.is_twin and of.pair.split == split}


def pair_rows(pairs: Iterable[ListedPair]) -> Iterator[tuple[object, ...]]:
    """Make the rows of near_duplicates.csv, the header first."""
    yield COLUMNS
    for of in pairs:
        pair = of.pair
        images = pair.split, pair.index, pair.other_split, pair.other_index
        labels = escape_formula(of.label), escape_formula(of.other_label)
        yield (*images, pair.distance, int(pair.mirrored), *labels, of.cluster, of.id)


def load_pairs(audit_dir: Path, raw: ShardSet) -> list[ListedPair]:
    """Read near_duplicates.csv, which was written for `raw`. Raises CorruptDataError if it is missing or malformed."""
    path = audit_dir / NEAR_DUPLICATES_NAME
    try:
        with path.open(encoding="utf-8", newline="") as file:
            numbered = [(_parse_pair(row), int(row["cluster"]), row["pair"]) for row in csv.DictReader(file)]
        return _with_labels(raw, numbered)
    except FileNotFoundError:
        raise CorruptDataError(f"{path}: no such file") from None
    except (LookupError, ValueError, TypeError, csv.Error) as error:
        raise CorruptDataError(f"{path}: not a list of near-duplicates of {raw.dir}: {error!r}") from None


def load_ignored(path: Path) -> set[str]:
    """Read the ids of pairs that were judged not to be duplicates: the column `pair` of a CSV file.

    Raises InputError, which names the file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if "pair" not in (rows.fieldnames or ()):
                raise InputError(f"{path}: expected a column `pair`, as in near_duplicates.csv, got {rows.fieldnames}")
            return {row["pair"] for row in rows}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, although params.yaml names it as audit.ignore") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _pair_id(pair: Pair, digests: Mapping[Split, Digests]) -> str:
    images = digests[pair.split][pair.index], digests[pair.other_split][pair.other_index]
    return hashlib.sha256(b"".join(sorted(map(bytes, images)))).hexdigest()[:ID_DIGITS]


def _parse_pair(row: Mapping[str, Any]) -> Pair:
    return Pair(
        split=row["split"],
        index=int(row["index"]),
        other_split=row["other_split"],
        other_index=int(row["other_index"]),
        distance=float(row["distance"]),
        mirrored=row["mirrored"] == "1",
    )


def _with_labels(raw: ShardSet, numbered: Iterable[tuple[Pair, int, str]]) -> list[ListedPair]:
    labels = {split: raw.labels(split).tolist() for split in raw.manifest.splits}
    classes = raw.manifest.classes
    return [
        ListedPair(
            pair,
            classes[labels[pair.split][pair.index]],
            classes[labels[pair.other_split][pair.other_index]],
            cluster,
            of_pair,
        )
        for pair, cluster, of_pair in numbered
    ]
