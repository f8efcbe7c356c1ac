import numpy as np
import pytest

from pipeline.audit.limits import NUM_LISTED, check_limits
from pipeline.audit.lists import LISTED, PairTable
from pipeline.audit.pairs import Pair
from pipeline.errors import PipelineError
from shardset.manifest import SPLITS
from tests.helpers.audits import tabulate

CLASSES = ("cat", "dog")


def listed(split, index, other_split, other_index, distance=0.1, other_label="cat"):
    return Pair(split, index, other_split, other_index, distance, mirrored=False), other_label


def table_of(*pairs):
    rows = np.zeros(len(pairs), LISTED)
    made = tabulate(pair for pair, _ in pairs)
    for name in made.dtype.names:
        rows[name] = made[name]
    rows["other_label"] = [CLASSES.index(other_label) for _, other_label in pairs]
    return PairTable(SPLITS, CLASSES, rows)


PAIRS = table_of(
    listed("train", 9, "train", 3),
    listed("test", 1, "train", 3, 0.3),
    listed("test", 1, "train", 4, 0.2, other_label="dog"),
    listed("val", 0, "train", 5),
    listed("test", 7, "val", 0),
)
EXACT = tabulate([listed("train", 9, "train", 3, 0.0)[0], listed("test", 8, "train", 9, 0.0)[0]])


def check(**limits):
    check_limits(PAIRS, EXACT, {"max_leaked": None, "max_exact_duplicates": None, "max_label_conflicts": None} | limits)


def test_no_limit_allows_everything():
    check()


@pytest.mark.parametrize(
    ("key", "found", "line"),
    [
        ("max_leaked", 2, "  test 1 and train 4, distance 0.2"),  # an image counts once, by its nearest
        ("max_exact_duplicates", 2, "  test 8 and train 9, distance 0.0"),
        ("max_label_conflicts", 1, "  test 1 and train 4, distance 0.2"),
    ],
)
def test_limit_is_inclusive_and_what_exceeds_it_is_listed(key, found, line):
    check(**{key: found})
    with pytest.raises(PipelineError) as failed:
        check(**{key: found - 1})
    first, *lines, last = str(failed.value).splitlines()
    assert first == f"audit.{key}: expected at most {found - 1}, got {found}:"
    assert line in lines
    assert len(lines) == found
    assert last.startswith("All pairs are in data/audit/near_duplicates.csv.")


def test_each_exceeded_limit_is_reported():
    with pytest.raises(PipelineError, match=r"(?s)audit\.max_leaked: .*audit\.max_label_conflicts: "):
        check(max_leaked=0, max_label_conflicts=0)


def test_long_list_is_cut():
    pairs = table_of(*(listed("test", index, "train", 0) for index in range(NUM_LISTED + 5)))
    with pytest.raises(PipelineError, match="\n  and 5 more\n"):
        check_limits(pairs, tabulate([]), {"max_leaked": 0})
