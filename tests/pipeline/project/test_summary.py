from typing import Any

import numpy as np
import pytest

from pipeline.project.suggest import suggest_params
from pipeline.project.summary import WIDTH, render_summary
from pipeline.sources.images.catalog import Catalog
from pipeline.sources.images.decode import Header

SMALL = Header("JPEG", "RGB", 40, 30)


def make_catalog(counts, header=SMALL, **changes):
    """A catalog with images of one header: `counts` has the number of each class by split."""
    labels = {split: np.repeat(np.arange(len(of_split)), of_split) for split, of_split in counts.items()}
    names = {split: [f"{split}/{number}.jpg" for number in range(len(of_split))] for split, of_split in labels.items()}
    facts: dict[str, Any] = {
        "classes": tuple(f"class_{index:04}" for index in range(len(next(iter(counts.values()))))),
        "names": names,
        "labels": labels,
        "container": None,
        "headers": {name: header for of_split in names.values() for name in of_split},
        "unreadable": {},
        "ignored": {},
        "problems": [],
    }
    return Catalog(**facts | changes)


def render(catalog, headers=None):
    headers = [*catalog.headers.values()] if headers is None else headers
    text = render_summary(catalog, headers, suggest_params(headers) if headers else None)
    assert max(map(len, text.splitlines()), default=0) <= WIDTH
    return text


def test_summary_of_two_splits():
    headers = [SMALL, SMALL, Header("PNG", "P", 300, 2_000), Header("PNG", "L", 50, 34)]
    ignored = {"notes.txt": "not an image", ".DS_Store": "hidden", "a/.git": "hidden"}
    assert (
        render(make_catalog({"train": [2, 1], "test": [0, 1]}, ignored=ignored), headers)
        == """\
images      4 in 2 classes: 3 train, 1 test
                 train      test
  class_0000         2         0
  class_0001         1         1
pixels             min    median       max
  width             40        40       300
  height            30        30     2,000
  short side        30        30       300
formats     2 JPEG, 2 PNG
converted   from Pillow's modes: 1 P
left out    2 hidden: .DS_Store, a/.git
left out    1 not an image: notes.txt
suggested   4 images of 3x32x32 float32, 0 MB, with these params:
  images.size: 32
  images.resize: 36
  normalize.dtype: float32
  normalize.samples_per_shard: 10000
enlarged    3 images, whose short side is below 36; 2 of them below 32
note        Only headers were read. `download` decodes every image, and lists those that are
            damaged."""
    )


def test_many_classes_show_the_smallest_and_largest():
    counts = np.full(1_000, 50)
    counts[[7, 999]] = 1, 1_234
    text = render(make_catalog({"train": counts, "val": counts}))
    assert "images      102,270 in 1,000 classes: 51,135 train, 51,135 val" in text
    assert "the 5 smallest and the 5 largest of 1,000" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("  class_")]
    assert len(lines) == 10
    assert (lines[0], lines[-1]) == (["class_0007", "1", "1"], ["class_0999", "1,234", "1,234"])


@pytest.mark.parametrize(("num_classes", "num_lines"), [(1, 1), (30, 30), (31, 10)])
def test_up_to_30_classes_are_listed(num_classes, num_lines):
    lines = render(make_catalog({"train": [2] * num_classes})).splitlines()
    assert len([line for line in lines if line.startswith("  class_")]) == num_lines


def test_squares_of_one_size_are_not_resized():
    text = render(make_catalog({"train": [3]}, Header("PNG", "L", 28, 28)))
    assert "3 images of 1x28x28" in text
    assert "images.resize: null" in text
    assert "enlarged" not in text


def test_unreadable_images_are_counted():
    text = render(make_catalog({"train": [3, 2]}), [SMALL] * 3)
    assert "images      5 in 2 classes: 5 train\n            2 of them can't be read\n" in text


@pytest.mark.parametrize(("count", "listed"), [(5, True), (6, False)])
def test_names_left_out_are_listed_where_few(count, listed):
    text = render(make_catalog({"train": [1]}, ignored={f"{number}.txt": "not an image" for number in range(count)}))
    assert f"left out    {count} not an image" in text
    assert ("0.txt" in text) is listed


def test_control_characters_are_not_printed():
    text = render(make_catalog({"train": [1]}, classes=("a\x1b[2Jb",), ignored={"\x1b[2J": "hidden"}))
    assert "\x1b" not in text


def test_long_class_names_are_shortened():
    assert f"  {'a' * 40}...  " in render(make_catalog({"train": [1, 1]}, classes=("a" * 200, "b")))


def test_source_without_images_shows_what_is_left_out():
    catalog = make_catalog({"train": []}, ignored={"a.txt": "not an image"})
    assert render(catalog) == "left out    1 not an image: a.txt"
    assert render(make_catalog({"train": []})) == ""
