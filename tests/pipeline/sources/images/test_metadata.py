import json
import re

import pytest

from pipeline.sources.images.containers import Folder
from pipeline.sources.images.layout import MetadataRow
from pipeline.sources.images.metadata import find_metadata, read_metadata
from shardset.errors import InputError

ROWS = [("1.jpg", "cat", None), ("sub/2.jpg", "dog, wild", "test"), ("3.jpg", "it's\u2028", "val")]


@pytest.fixture
def read(tmp_path):
    """Write a metadata file and read it."""

    def write_and_read(content, name="metadata.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [*read_metadata(name, Folder(tmp_path).open)]

    return write_and_read


def as_tuples(found):
    return [(row.path, row.label, row.split) for row in found]


CSV = 'file_name,label,split,width\n1.jpg,cat,,5\nsub/2.jpg,"dog, wild",TEST,6\n3.jpg,it\'s\u2028,Validation,7\n'
JSONL = "".join(
    json.dumps({"file_name": name, "label": label, "split": split, "width": 5}, ensure_ascii=False) + "\n"
    for name, label, split in ROWS
)


@pytest.mark.parametrize("change", [str.encode, lambda text: b"\xef\xbb\xbf" + text.encode()], ids=["plain", "BOM"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "text"), [("metadata.csv", CSV), ("metadata.jsonl", JSONL)])
def test_csv_and_jsonl_are_read(name, text, ending, change, read):
    assert as_tuples(read(change(text.replace("\n", ending)), name)) == ROWS
    assert as_tuples(read(change(text.replace("\n", ending).rstrip()), name)) == ROWS


def test_row_knows_its_file_and_line(read):
    assert read('\n{"file_name": "a.jpg", "label": 3}\n', "metadata.jsonl") == [
        MetadataRow("a.jpg", "3", None, "metadata.jsonl, line 2")
    ]
    assert [row.where for row in read('file_name,label\n"a\nb.jpg",x\nc.jpg,y\n')] == [
        "metadata.csv, line 3",
        "metadata.csv, line 4",
    ]


def test_file_names_are_relative_to_the_metadata(read):
    found = read("file_name,label\n./a/1.jpg,x\n../2.jpg,y\n", "train/metadata.csv")
    assert [row.path for row in found] == ["train/a/1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.csv",
            "",
            "line 1: should name the columns file_name and label, separated by commas, but file_name and ",
        ),
        ("metadata.csv", "file_name,text\n1.jpg,x\n", "line 1: should name the columns .*, but label is missing$"),
        (
            "metadata.csv",
            "file_name;label\n1.jpg;x\n",
            "line 1: .* separated by commas, but file_name and label are missing",
        ),
        ("metadata.csv", "file_name,label\n1.jpg\n", "line 2: label: should be a text or a whole number, got null"),
        ("metadata.csv", "file_name,label\n1.jpg,\n", 'line 2: label: should be a text or a whole number, got ""'),
        ("metadata.csv", "file_name,label\n,x\n", 'line 2: file_name: should be a text or a whole number, got ""'),
        (
            "metadata.csv",
            "file_name,label,split\n1.jpg,x,dev\n",
            'line 2: split: should be one of train, .*, got "dev"$',
        ),
        ("metadata.csv", 'file_name,label\n"1.jpg" x,y\n', "line 2: not valid CSV: "),
        ("metadata.csv", 'file_name,label\n"1.jpg,y\n', "line 2: not valid CSV: "),
        ("metadata.csv", "file_name,label\n\xff".encode("latin-1"), "should be UTF-8 text: "),
        ("metadata.csv", "file_name,label\n1.jpg,x\n".encode("utf-16"), "should be UTF-8 text: "),
        ("metadata.jsonl", "[1]\n", r"line 1: should be a JSON object, got \[1\]$"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": 1}\n{"file_name', "line 2: not valid JSON: {"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": true}\n', "line 1: label: .*, got true$"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": 1.5}\n', "line 1: label: .*, got 1.5$"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": [1]}\n', r"line 1: label: .*, got \[1\]$"),
        ("metadata.jsonl", '{"file_name": "1.jpg"}\n', "line 1: label: .*, got null$"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": 1, "split": 1}', "line 1: split: .*, got 1$"),
        ("metadata.jsonl", "[" * 100_000, "line 1: not valid JSON: "),
    ],
)
def test_malformed_file_is_refused_by_line(name, content, message, read):
    with pytest.raises(InputError) as raised:
        read(content, name)
    assert re.match(f"{name}(:|,) ?{message}", str(raised.value)), raised.value
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("files", "folders", "found"),
    [
        (["metadata.csv", "1.jpg"], [], ["metadata.csv"]),
        (["metadata.jsonl"], ["train"], ["metadata.jsonl"]),
        (
            ["Valid/metadata.csv", "train/metadata.jsonl"],
            ["Valid", "train"],
            ["Valid/metadata.csv", "train/metadata.jsonl"],
        ),
        (["train/cat/metadata.csv", "other/metadata.csv", "my_metadata.csv"], ["train", "train/cat", "other"], []),
    ],
)
def test_metadata_is_found_at_the_top_and_in_splits(files, folders, found):
    assert find_metadata(files, folders) == found


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (["metadata.csv", "metadata.jsonl"], [], "metadata.csv, metadata.jsonl: two metadata files in one folder"),
        (
            ["metadata.csv", "train/metadata.csv"],
            ["train"],
            "metadata.csv, train/metadata.csv: metadata at the top and in",
        ),
        (["train/metadata.csv"], ["train", "test"], "test: should have a metadata file too, because train has one"),
    ],
)
def test_contradictory_metadata_is_refused(files, folders, message):
    with pytest.raises(InputError, match=f"^{message}"):
        find_metadata(files, folders)
