import io
import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import ParquetFile, write_table

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.catalog import read_catalog
from pipeline.sources.images.parquet import is_parquet, open_parquet
from shardset.errors import InputError
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, read_images
from tests.helpers.workspace import assert_fails, assert_succeeds, make_workspace

IMAGE = {"_type": "Image"}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = ("cat", "dog")


def write_images(path, contents, labels, classes=CLASSES, columns=("image", "label"), features=None, **options):
    """Write a file in the layout of `datasets`."""
    if features is None:
        features = {columns[0]: IMAGE, columns[1]: {"names": [*classes], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([(columns[0], STRUCT), (columns[1], pa.int64())], metadata=metadata)
    rows = [content and {"bytes": content, "path": "a.png"} for content in contents]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.table({columns[0]: rows, columns[1]: labels}, schema=schema), path, **options)
    return path


def write_small(path, num_rows=2, **options):
    return write_images(path, encode(make_images(num_rows)), [row % 2 for row in range(num_rows)], **options)


def encode(images):
    files = [io.BytesIO() for _ in images]
    for file, pixels in zip(files, images, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return [file.getvalue() for file in files]


def read(path):
    return read_catalog(path, lambda *_: None)


def contents_of(images, split="train"):
    return [images.open(name).read() for name in images.names[split]]


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path / "clone")
    for line, new_line in (
        ("dataset: cifar10", "dataset: images"),
        ("  size: 224", "  size: 32"),
        ("  resize: 256", "  resize: null"),
    ):
        made.set_param(line, new_line)
    return made


@pytest.mark.slow
def test_parquet_gives_the_content_of_class_folders(workspace, tmp_path):
    contents = {split: encode(make_images(6, seed=seed)) for seed, split in enumerate(("train", "val", "test"))}
    labels = [0, 0, 0, 1, 1, 1]
    for split, of_split in contents.items():
        for index, content in enumerate(of_split):
            path = tmp_path / "folders" / split / CLASSES[labels[index]] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    write_images(tmp_path / "hub/data/train-00000-of-00002.parquet", contents["train"][:2], labels[:2])
    write_images(tmp_path / "hub/data/train-00001-of-00002.parquet", contents["train"][2:], labels[2:])
    write_images(tmp_path / "hub/data/validation-00000-of-00001.parquet", contents["val"], labels)
    write_images(tmp_path / "hub/data/test-00000-of-00001.parquet", contents["test"], labels)
    hashes = []
    for source in ("folders", "hub"):
        assert_succeeds(workspace.pipeline("download", "--source", tmp_path / source))
        hashes.append(open_shards(workspace.path / "data/raw").manifest.content_sha256)
    assert hashes[0] == hashes[1]
    samples = (workspace.path / "data/raw/train/samples.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in samples[2:4]] == [
        "data/train-00000-of-00002.parquet#1",
        "data/train-00001-of-00002.parquet#0",
    ]


@pytest.mark.slow
def test_layout_of_cifar10_gives_its_pixels(workspace, tmp_path):
    images = make_images(40)
    options = {"columns": ("img", "label"), "row_group_size": 7}
    for split, part in (("train", slice(0, 30)), ("test", slice(30, 40))):
        path = tmp_path / f"hub/plain_text/{split}-00000-of-00001.parquet"
        write_images(path, encode(images[part]), [index % 2 for index in range(40)][part], **options)
    (tmp_path / "hub/README.md").write_text("# CIFAR-10\n")
    assert_succeeds(workspace.pipeline("download", "--source", tmp_path / "hub"))
    shards = open_shards(workspace.path / "data/raw")
    np.testing.assert_array_equal(read_images(shards, "train"), images[:30])
    np.testing.assert_array_equal(read_images(shards, "test"), images[30:])


@pytest.mark.slow
def test_damaged_file_fails_in_one_line(workspace, tmp_path):
    path = write_small(tmp_path / "train.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    done = workspace.pipeline("download", "--source", path)
    assert_fails(done, 2, f"{path}: not a readable parquet file: ")
    assert done.stderr.count("\n") == 1


# Files by split, for the files of a source.
LAYOUTS = {
    "shards": (
        ["data/test-00000-of-00001.parquet", "data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"],
        {"train": [2, 1], "test": [0]},
    ),
    "fingerprint": (["data/train-00000-of-00001-0123456789abcdef.parquet"], {"train": [0]}),
    "converted branch": (
        ["default/train/0001.parquet", "default/train/0000.parquet", "default/validation/0000.parquet"],
        {"train": [1, 0], "val": [2]},
    ),
    "shards in folders": (
        ["Test/test-00000-of-00001.parquet", "TRAIN/part-00000-of-00001.parquet"],
        {"train": [1], "test": [0]},
    ),
    "one file": (["pets.parquet"], {"train": [0]}),
}


@pytest.mark.parametrize(("files", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_splits_follow_names_of_files_and_folders(tmp_path, files, expected):
    for name in (*files, ".cache/huggingface/train-00000-of-00009.parquet"):
        write_small(tmp_path / name)
    catalog = read(tmp_path)
    table = open_parquet(tmp_path, files)  # in no particular order
    rows = {
        split: [f"{files[index]}#{row}" for index in of_split for row in (0, 1)] for split, of_split in expected.items()
    }
    assert catalog.names == table.names == rows
    assert catalog.problems == []
    assert catalog.ignored == {".cache": "hidden"}


WRONG_LAYOUTS = {
    "no split": (["train-00000-of-00001.parquet", "pets.parquet"], "pets.parquet: should say its split"),
    "other split": (
        ["unsupervised-00000-of-00001.parquet"],
        "unsupervised-00000-of-00001.parquet: should say its split",
    ),
    "missing shard": (["data/train-00001-of-00002.parquet"], "data: train-00000-of-00002.parquet: missing"),
    "versions": (
        ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "several versions of one split: train-*-of-00001, train-*-of-00002; keep one",
    ),
    "same shard twice": (
        ["train-00000-of-00001.parquet", "train-00000-of-00001-0123456789abcdef.parquet"],
        "more than 00001 files: train-00000-of-00001-0123456789abcdef.parquet, train-00000-of-00001.parquet; keep one",
    ),
    "configs with the same split": (
        ["de/train-00000-of-00001.parquet", "en/train-00000-of-00001.parquet"],
        "several alternatives for the split train: de/train, en/train; keep one",
    ),
    "configs with other splits": (
        ["de/train-00000-of-00001.parquet", "en/test-00000-of-00001.parquet"],
        "several configs: de, en; keep one",
    ),
    "two spellings": (["val/0.parquet", "valid/0.parquet"], "for the split val: val, valid; keep one"),
    "images too": (
        ["train-00000-of-00001.parquet", "cat/1.png"],
        "train-00000-of-00001.parquet and cat/1.png; keep one",
    ),
}


@pytest.mark.parametrize(("files", "message"), WRONG_LAYOUTS.values(), ids=WRONG_LAYOUTS)
def test_ambiguous_layout_is_rejected(tmp_path, files, message):
    for name in files:
        write_small(tmp_path / name)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert message in str(error.value)


def test_folder_or_text_is_not_parquet(tmp_path):
    (tmp_path / "notes.txt").write_text("PAR")
    assert not is_parquet(tmp_path)
    assert not is_parquet(tmp_path / "notes.txt")
    assert not is_parquet(tmp_path / "missing.parquet")


def test_file_without_suffix_is_read_by_content(tmp_path):
    assert read(write_small(tmp_path / "download")).names == {"train": ["download#0", "download#1"]}


LABEL = {"names": [*CLASSES], "_type": "ClassLabel"}
WRONG_FEATURES = {
    "two images": (
        {"image": IMAGE, "label": LABEL, "mask": IMAGE},
        "got image (Image), label (ClassLabel), mask (Image)",
    ),
    "two labels": (
        {"image": IMAGE, "label": LABEL, "fine": LABEL},
        "got image (Image), label (ClassLabel), fine (Class",
    ),
    "no label": ({"image": IMAGE, "label": {"_type": "Value"}, "box": [{}]}, "label (Value), box (nested)"),
    "swapped": (
        {"label": IMAGE, "image": LABEL},
        "label: should be of type struct<bytes: binary, path: string>, got int64",
    ),
    "no such column": ({"picture": IMAGE, "label": LABEL}, "picture: the column is missing"),
    "no names": ({"image": IMAGE, "label": LABEL | {"names": None}}, "label: should have distinct printable names"),
    "equal names": ({"image": IMAGE, "label": LABEL | {"names": ["a", "a"]}}, 'in the metadata, got ["a", "a"]'),
    "no dict": ([], "has no metadata of Hugging Face that say which column holds images, got the columns image, label"),
}


@pytest.mark.parametrize(("features", "message"), WRONG_FEATURES.values(), ids=WRONG_FEATURES)
def test_unusable_columns_are_rejected(tmp_path, features, message):
    path = write_small(tmp_path / "a.parquet", features=features)
    with pytest.raises(InputError) as error:
        open_parquet(tmp_path, [path.name])
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_file_without_metadata_is_rejected(tmp_path):
    write_table(pa.table({"pixels": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no metadata of Hugging Face .* got the columns pixels"):
        read(tmp_path)


def test_classes_keep_the_order_of_the_schema(tmp_path):
    write_images(tmp_path / "a.parquet", encode(make_images(3)), [2, 0, 1], classes=("zebra", "cat", "dog"))
    catalog = read(tmp_path)
    assert catalog.classes == ("zebra", "cat", "dog")
    assert catalog.labels["train"].tolist() == [2, 0, 1]
    assert catalog.labels["train"].dtype == np.int64


def test_other_classes_in_another_file_are_rejected(tmp_path):
    write_small(tmp_path / "train-00000-of-00001.parquet")
    write_small(tmp_path / "test-00000-of-00001.parquet", classes=("dog", "cat"))
    with pytest.raises(InputError, match="test-.*: expected image, label of cat, dog, got image, label of dog, cat"):
        read(tmp_path)


@pytest.mark.parametrize(("label", "got"), [(-1, "-1"), (2, "2"), (None, "null")])
def test_label_without_class_is_rejected(tmp_path, label, got):
    path = write_images(tmp_path / "a.parquet", encode(make_images(3)), [0, 1, label])
    with pytest.raises(InputError) as error:
        read(path)
    assert f"{path}, row 2: label: should be an index of a class, 0 to 1, got {got}." in str(error.value)


@pytest.mark.parametrize("content", [None, {"bytes": None, "path": "a.png"}])
def test_row_without_bytes_is_unreadable(tmp_path, content):
    path = tmp_path / "a.parquet"
    write_images(path, encode(make_images(1)), [0])
    table = ParquetFile(path).read()
    rows = pa.array([*table["image"].to_pylist(), content], STRUCT)
    write_table(pa.table({"image": rows, "label": [0, 1]}, schema=table.schema), path)
    catalog = read(path)
    assert [*catalog.headers] == ["a.parquet#0"]
    assert catalog.unreadable["a.parquet#1"].startswith("the row holds no image")
    with pytest.raises(UnreadableImageError):
        catalog.open("a.parquet#1")


@pytest.mark.parametrize("row_group_size", [1, 5, 16, 33, 1000])
def test_rows_are_read_from_row_groups_of_any_size(tmp_path, row_group_size):
    contents = [f"{index}".encode() * (index % 7 + 1) for index in range(200)]
    for number, part in enumerate((slice(0, 90), slice(90, 200))):
        path = tmp_path / f"train-{number:05}-of-00002.parquet"
        write_images(path, contents[part], [0] * len(contents[part]), row_group_size=row_group_size)
    images = open_parquet(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    assert contents_of(images) == contents
    order = np.random.default_rng(0).permutation(200).tolist()
    assert [images.open(images.names["train"][index]).read() for index in order] == [contents[i] for i in order]
    assert contents_of(pickle.loads(pickle.dumps(images))) == contents


@pytest.fixture
def scans(monkeypatch):
    """The scans of files that were started."""
    monkeypatch.setenv("PIPELINE_THREADS", "16")
    found = []
    scan = ParquetFile.iter_batches

    def counted(*args, **options):
        found.append(args)
        return scan(*args, **options)

    monkeypatch.setattr(ParquetFile, "iter_batches", counted)
    return found


def test_threads_read_each_row_group_once(tmp_path, scans):
    contents = [index.to_bytes(4) for index in range(3000)]
    write_images(tmp_path / "a.parquet", contents, [0] * 3000, row_group_size=700)
    images = open_parquet(tmp_path, ["a.parquet"])
    assert [*imap_on_threads(lambda name: images.open(name).read(), images.names["train"])] == contents
    assert len(scans) == 1


def test_late_thread_starts_no_second_scan(tmp_path, scans):
    contents = [index.to_bytes(4) for index in range(1000)]
    write_images(tmp_path / "a.parquet", contents, [0] * 1000, row_group_size=700)
    images = open_parquet(tmp_path, ["a.parquet"])
    for row in (*range(671), 735, *range(671, 735)):
        assert images.open(f"a.parquet#{row}").read() == contents[row]
    assert len(scans) == 1


def test_memory_stays_flat_in_one_large_row_group(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", "2")
    rng = np.random.default_rng(0)
    contents = [rng.bytes(20_000) for _ in range(2000)]
    # Small pages: a page is the least that can be read.
    options = {"write_batch_size": 16, "data_page_size": 1 << 18, "use_dictionary": False}
    write_images(tmp_path / "a.parquet", contents, [0] * 2000, **options)
    images = open_parquet(tmp_path, ["a.parquet"])
    before, peak = pa.total_allocated_bytes(), 0
    for name, content in zip(images.names["train"], contents, strict=True):
        assert images.open(name).read() == content
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 6_000_000  # of 40 MB


def test_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="only a pointer of Git LFS; .* `git lfs pull`"):
        read(tmp_path)


@pytest.mark.parametrize("damage", ["page", "footer", "empty"])
def test_damaged_file_is_named_with_the_reason(tmp_path, damage):
    path = write_small(tmp_path / "a.parquet", use_dictionary=False)
    content = bytearray(path.read_bytes())
    if damage == "page":
        content[4:12] = b"\xff" * 8
    path.write_bytes({"page": content, "footer": content[:-8], "empty": b""}[damage])
    for _ in range(2):  # also when asked again
        with pytest.raises(InputError) as error:
            contents_of(open_parquet(tmp_path, [path.name]))
        assert str(error.value).startswith(f"{path}: not a readable parquet file: ")
        assert "\n" not in str(error.value)


def test_damaged_page_fails_for_each_row(tmp_path):
    path = write_small(tmp_path / "a.parquet", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:12] = b"\xff" * 8
    path.write_bytes(content)
    images = open_parquet(tmp_path, [path.name])
    for name in images.names["train"]:
        with pytest.raises(InputError, match="not a readable parquet file"):
            images.open(name)


def test_vanished_file_is_an_error_of_the_system(tmp_path):
    path = write_small(tmp_path / "a.parquet")
    images = open_parquet(tmp_path, [path.name])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        images.open("a.parquet#0")


def test_missing_pyarrow_is_named_with_the_extra(tmp_path, monkeypatch):
    path = write_small(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install .* '\.\[parquet\]'"):
        read(path)


@pytest.mark.parametrize("name", ["images.zip", "images.tar"])
def test_parquet_in_an_archive_is_rejected(tmp_path, name):
    import shutil

    write_small(tmp_path / "data/train-00000-of-00001.parquet")
    archive = shutil.make_archive(tmp_path / "images", name[-3:], tmp_path, "data")
    with pytest.raises(InputError, match="has parquet files inside, such as .*; unpack it"):
        read(tmp_path / archive)
