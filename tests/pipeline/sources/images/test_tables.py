import csv
import hashlib
import io

import numpy as np
import pytest

from pipeline.sources.images.facts import ImageFacts
from pipeline.sources.images.tables import (
    check_readable,
    count_equal,
    describe_changes,
    find_unreadable,
    write_tables,
)
from shardset.errors import InputError


def fact(mode="RGB", problem=None, orientation=1, width=4, *, more=False):
    return ImageFacts("ab" * 32, width, 3, orientation, mode, problem, has_more_frames=more)


FACTS = {
    "train": [fact(), fact("", "truncated"), fact("L", orientation=6)],
    "test": [fact("RGBA"), fact("P", "broken, \nodd")],
}
NAMES = {
    "train": ["train/a/1.jpg", "train/a/2.jpg", 'train/b/"3", \u00e9.jpg'],
    "test": ["test/b/4.png", "test/b/5.png"],
}
LABELS = {"train": np.array([0, 0, 1]), "test": np.array([1, 1])}
SELECTION = {"train": ("train", np.array([0, 2])), "val": ("train", np.array([], int)), "test": ("test", np.array([0]))}


def test_unreadable_samples_are_found():
    assert find_unreadable(FACTS) == {"train": [1], "test": [1]}
    check_readable({"train": ["train/a/1.jpg"]}, {"train": [fact()]})


def test_unreadable_samples_are_listed_one_a_line():
    names = NAMES | {"test": ["test/b/4.png", "test/b/5\n\x1b.png"]}
    with pytest.raises(InputError) as raised:
        check_readable(names, FACTS | {"test": [fact(), fact("P", "broken")]})
    assert str(raised.value).splitlines() == [
        "2 images can't be read:",
        "  train/a/2.jpg: truncated",
        "  test/b/5 .png: broken",
        "Repair or remove them, or set images.unreadable to skip in params.yaml.",
    ]
    with pytest.raises(InputError, match="^1 image can't be read:\n  train sample 0: truncated\n"):
        check_readable(None, {"train": [fact("", "truncated")]})


@pytest.fixture
def tables_of(tmp_path):
    """Write tables, and return them by path, as the manifest lists them."""

    def write(*arguments):
        for split in ("train", "val", "test"):
            (tmp_path / split).mkdir(exist_ok=True)
        files = write_tables(tmp_path, *arguments)
        tables = {file.path: (tmp_path / file.path).read_bytes() for file in files}
        for file in files:
            assert (file.bytes, file.sha256) == (len(tables[file.path]), hashlib.sha256(tables[file.path]).hexdigest())
        return {path: content.decode() for path, content in tables.items()}

    return write


def test_tables_trace_samples_to_their_files(tables_of):
    tables = tables_of(NAMES, LABELS, FACTS, SELECTION)
    header = "index,source,sha256,label,width,height,orientation,mode\n"
    sha256 = "ab" * 32
    assert tables == {
        "train/samples.csv": f"{header}0,train/a/1.jpg,{sha256},0,4,3,1,RGB\n"
        f'1,"train/b/""3"", \u00e9.jpg",{sha256},1,4,3,6,L\n',
        "val/samples.csv": header,
        "test/samples.csv": f"{header}0,test/b/4.png,{sha256},1,4,3,1,RGBA\n",
        "skipped.csv": 'source,reason\ntrain/a/2.jpg,truncated\ntest/b/5.png,"broken, \nodd"\n',
    }
    rows = [*csv.DictReader(io.StringIO(tables["train/samples.csv"]))]
    assert [row["source"] for row in rows] == [NAMES["train"][0], NAMES["train"][2]]


def test_samples_without_files_have_no_table(tables_of):
    assert tables_of(None, LABELS, {"train": [fact()] * 3}, SELECTION) == {}
    skipped = tables_of(None, LABELS, FACTS, SELECTION)
    assert skipped["skipped.csv"].startswith("source,reason\ntrain sample 1,truncated\n")
    assert list(skipped) == ["skipped.csv"]


def changes(facts, *, is_turned=True):
    """What is said about images that were converted, without what is said about those skipped."""
    lines = [line for line in describe_changes(facts, is_turned=is_turned) if not line.startswith("Skipped: ")]
    return "".join(lines).removeprefix("Converted: ")


def test_skipped_images_are_counted():
    facts = {"train": [fact("", "truncated"), fact()], "test": [fact("P", "truncated")]}
    assert [*describe_changes(facts, is_turned=True)] == ["Skipped: 2 unreadable, listed in skipped.csv"]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["RGB", "RGB"], ""),
        (["L", "L"], ""),
        (["L", "RGB", "L"], "2 L"),
        (["L", "I;16", "1"], "1 1, 1 I;16"),
        (["CMYK", "P", "P"], "2 P, 1 CMYK"),
        ([], ""),
    ],
)
def test_conversions_are_counted(modes, expected):
    assert changes({"train": [fact(mode) for mode in modes]}) == expected


def test_turned_and_first_frames_are_counted_but_not_unreadable_ones():
    facts = {
        "train": [fact(orientation=6), fact(orientation=6), fact(more=True)],
        "test": [fact("", "truncated"), fact("P", "truncated", 3)],
    }
    assert changes(facts) == "2 EXIF orientation 6, 1 first of several frames or pages"
    assert changes(facts, is_turned=False) == "1 first of several frames or pages"


def test_equal_values_are_counted_most_frequent_first():
    assert count_equal(["b", "a", "c", "c"]) == "2 c, 1 a, 1 b"
    assert count_equal(["x"] * 1234) == "1,234 x"
