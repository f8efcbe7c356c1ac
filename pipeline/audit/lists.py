"""The pairs of near-duplicates as they are listed: exact ones added, judged ones left out, numbered by cluster."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.pairs import PAIR, Indices, Pair, Pairs, find_clusters, name_pair
from pipeline.runtime.files import escape_formula
from shardset.content import Digests
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Split
from shardset.reader import split_range
from shardset.shards import ShardSet

NEAR_DUPLICATES_NAME = "near_duplicates.csv"
COLUMNS = (
    *("split", "index", "other_split", "other_index", "distance", "mirrored"),
    *("label", "other_label", "cluster", "pair"),
)
ID_DIGITS = 16
# A row of PAIR with more columns, as in `ListedPair`. Labels are class indices.
LISTED = np.dtype([*PAIR.descr, ("label", "<i8"), ("other_label", "<i8"), ("cluster", "<i8"), ("id", f"S{ID_DIGITS}")])
ROWS_PER_BLOCK = 8192  # that are Python's objects at a time


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
class PairTable:
    """Listed pairs in the order of their splits and indices: `rows` of LISTED, 67 bytes each."""

    splits: tuple[Split, ...]
    classes: tuple[str, ...]
    rows: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ListedPair]:
        for start, stop in split_range(0, len(self), ROWS_PER_BLOCK):
            for row in self.rows[start:stop].tolist():
                label, other_label, cluster, of_pair = row[6:]
                names = self.classes[label], self.classes[other_label]
                yield ListedPair(name_pair(self.splits, row), *names, cluster, of_pair.decode())

    @property
    def is_conflict(self) -> NDArray[np.bool_]:
        """Whether the labels of each pair differ, (N,)."""
        differ: NDArray[np.bool_] = self.rows["label"] != self.rows["other_label"]
        return differ

    def between(self, split: Split, other_split: Split) -> "PairTable":
        """Return the pairs of an image of `split` with one of `other_split`."""
        numbers = self.splits.index(split), self.splits.index(other_split)
        return self.select((self.rows["split"] == numbers[0]) & (self.rows["other_split"] == numbers[1]))

    def select(self, chosen: NDArray[Any]) -> "PairTable":
        """Return some of the pairs, by a mask or by their places."""
        return PairTable(self.splits, self.classes, self.rows[chosen])


@dataclass(frozen=True)
class LeftOut:
    """How many pairs were left out because people judged them not to be duplicates, and how many with other labels."""

    pairs: int
    conflicts: int


def list_pairs(
    raw: ShardSet, found: Pairs, digests: Mapping[Split, Digests], ignored: AbstractSet[str]
) -> tuple[PairTable, LeftOut]:
    """List pairs in the order of their splits and indices, each once at its least distance.

    Pairs whose id is in `ignored` are left out, and counted.
    """
    splits = tuple(raw.manifest.splits)
    pairs = _keep_closest(found)
    rows = np.zeros(len(pairs), LISTED)
    for name in PAIR.names or ():
        rows[name] = pairs[name]
    ids = (_pair_id(name_pair(splits, row), digests) for row in pairs)
    rows["id"] = np.fromiter(ids, LISTED["id"], len(rows))
    for number, split in enumerate(splits if len(rows) else ()):
        labels = raw.labels(split)
        for prefix in ("", "other_"):
            of_split = rows[f"{prefix}split"] == number
            rows[f"{prefix}label"][of_split] = labels[rows[f"{prefix}index"][of_split]]
    is_ignored = np.fromiter((of_pair.decode() in ignored for of_pair in rows["id"]), np.bool_, len(rows))
    table = PairTable(splits, raw.manifest.classes, rows)
    left_out, kept = table.select(is_ignored), table.select(~is_ignored)
    kept.rows["cluster"] = find_clusters(kept.rows)
    return kept, LeftOut(pairs=len(left_out), conflicts=int(left_out.is_conflict.sum()))


def lists_to_keep(raw: ShardSet, pairs: PairTable) -> dict[str, Iterator[tuple[object, ...]]]:
    """Make the rows of the lists to act on, by file name, as `ShardDataset` takes them, the header first."""
    lists = {}
    for split, of_split in raw.manifest.splits.items():
        dropped = find_twins(pairs, split) if split == "train" else find_leaked(pairs, split)
        name = f"{split}_without_{'twins' if split == 'train' else 'leaks'}.csv"
        lists[name] = _rows_to_keep(split, of_split.samples, dropped)
    return lists


def find_leaked(pairs: PairTable, split: Split) -> Indices:
    """Find the images of a split other than train that have a near-duplicate in train, by index."""
    leaks = pairs.between(split, "train").rows if split != "train" else pairs.rows[:0]
    return np.unique(leaks["index"])


def find_twins(pairs: PairTable, split: Split) -> Indices:
    """Find the images that have an earlier near-duplicate in the same split, by index."""
    return np.unique(pairs.between(split, split).rows["index"])


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
    labels = {split: raw.labels(split) for split in raw.manifest.splits}
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


def _keep_closest(pairs: Pairs) -> Pairs:
    """Order pairs by their splits and indices, and keep the first of those at the least distance of each."""
    names = ["split", "index", "other_split", "other_index"]
    pairs = pairs[np.lexsort([pairs["distance"], *(pairs[name] for name in reversed(names))])]
    is_first = np.ones(len(pairs), np.bool_)
    is_first[1:] = pairs[names][1:] != pairs[names][:-1]
    return pairs[is_first]


def _rows_to_keep(split: Split, num_images: int, dropped: Indices) -> Iterator[tuple[object, ...]]:
    yield "split", "index"
    is_kept = np.ones(num_images, np.bool_)
    is_kept[dropped] = False
    for start, stop in split_range(0, num_images, ROWS_PER_BLOCK):
        for index in np.flatnonzero(is_kept[start:stop]).tolist():
            yield split, start + index
