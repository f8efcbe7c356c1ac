import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shardset.errors import CorruptDataError, DamagedFileError
from shardset.manifest import SetFile, Shard, SplitShards, load_manifest, render_manifest
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_manifest


def make_split(split="train", sizes=(2, 1)):
    """Entries of a split's shards, of files that don't exist."""
    files = [
        [
            SetFile(path=f"{split}/{kind}-{index:05d}-of-{len(sizes):05d}.npy", bytes=size, sha256=f"{index:064x}")
            for kind in ("images", "labels")
        ]
        for index, size in enumerate(sizes)
    ]
    shards = [
        Shard(samples=size, images=images, labels=labels) for size, (images, labels) in zip(sizes, files, strict=True)
    ]
    return SplitShards(samples=sum(sizes), shards=tuple(shards))


def render_with_hash(data):
    """Render a manifest's contents, right or wrong, with the `manifest_sha256` that belongs to them."""
    text = json.dumps(data, indent=2) + "\n"
    return json.dumps(data | {"manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=2) + "\n"


def rewrite_manifest(path, change):
    """Apply `change` to a manifest's contents and give it a matching hash."""
    data = json.loads(path.read_bytes())
    del data["manifest_sha256"]
    path.write_text(render_with_hash(data | change(data)))


def assert_refused(set_dir, message):
    with pytest.raises(CorruptDataError) as caught:
        open_shards(set_dir)
    assert str(caught.value).startswith(f"{set_dir / 'manifest.json'}: ")
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    assert "Restore the file from the original source." in str(caught.value)


def test_written_manifest_is_read_back(small_set):
    content = (small_set / "manifest.json").read_bytes()
    assert render_manifest(load_manifest(small_set)).encode() == content


def test_manifest_hash_covers_the_text_without_it(small_set):
    text = (small_set / "manifest.json").read_text()
    data = json.loads(text)
    assert list(data)[-1] == "manifest_sha256"
    del data["manifest_sha256"]
    assert render_with_hash(data) == text


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), max_size=20)


@settings(max_examples=40)
@given(names, st.lists(names, unique=True, max_size=5), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_any_manifest_is_read_back(tmp_path_factory, dataset, classes, sizes):
    path = tmp_path_factory.mktemp("any")
    files = (SetFile(path="README.md", bytes=0, sha256="0" * 64),)
    splits = {"train": make_split("train", sizes), "val": make_split("val", sizes)}
    manifest = make_manifest(splits, dataset=dataset, classes=tuple(classes), files=files)
    (path / "manifest.json").write_text(render_manifest(manifest))
    assert load_manifest(path) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "format_version: should be 2, got 3"),
        ({"format_version": "2"}, 'format_version: should be a whole number, got "2"'),
        ({"dtype": "float64"}, "dtype: should be 'float32' or 'float16' or 'uint8', got \"float64\""),
        ({"layout": "NHWC"}, "layout: should be 'NCHW', got \"NHWC\""),
        ({"unknown": 1}, "unknown: unknown key"),
        ({"channels": ["red"]}, "channels: should have 3 names, one per channel of image_shape"),
        ({"content_sha256": "0"}, "content_sha256: should be a string matching"),
        ({"content_sha256": "0" * 64 + "\n"}, "content_sha256: should be a string matching"),
        ({"image_shape": [3, 32, 0]}, "image_shape.2: should be a whole number >= 1, got 0"),
        ({"image_shape": [3, 32]}, "image_shape: should be a list of length 3"),
        (
            {"normalization": {"scheme": "unit", "mean": [0.0], "std": [1.0]}},
            "normalization: should have a mean and a std for each channel",
        ),
        ({"normalization": {"scheme": "z", "mean": [], "std": []}}, "normalization.scheme: should be 'dataset' or"),
        (
            {"normalization": {"scheme": "unit", "mean": [0.0], "std": [0.0]}},
            "normalization.std.0: should be a number > 0.0, got 0.0",
        ),
        ({"channels": ["red", "green", "red"]}, "channels: should be unique names"),
        ({"splits": []}, "splits: should be a mapping of keys to values, got []"),
        (
            {"files": [{"path": "README.md", "bytes": -1, "sha256": "0" * 64}]},
            "files.0.bytes: should be a whole number >= 0, got -1",
        ),
    ],
)
def test_invalid_value_is_named_with_its_key(change, message, set_copy):
    rewrite_manifest(set_copy / "manifest.json", lambda data: change)
    assert_refused(set_copy, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("cat", "dog", "cat")}, "classes: should be unique names"),
        *(
            (
                {"classes": ("cat", f"a{character}b")},
                "classes: should have no line breaks or other unprintable characters",
            )
            for character in (
                "\n",
                "\r",
                "\t",
                "\0",
                "\x1b",
                "\x7f",
                "\x85",
                "\u2028",
                "\u2029",
                "\udcff",
                "\ufffe",
                "\uffff",
            )
        ),
        ({"dataset": "a\nb"}, "dataset: should have no line breaks"),
        ({"channels": ("red", "green", "b\nb")}, "channels: should have no line breaks"),
    ],
)
def test_unusable_name_is_neither_written_nor_read(change, message, set_copy):
    with pytest.raises(ValueError, match=message):
        make_manifest({"train": make_split()}, **change)
    rewrite_manifest(set_copy / "manifest.json", lambda data: change)
    with pytest.raises(DamagedFileError) as caught:
        load_manifest(set_copy)
    # Python's decoder accepts a lone surrogate in JSON, but that of msgspec doesn't.
    assert message in str(caught.value) or "surrogate" in str(caught.value)


def test_missing_key_is_named(set_copy):
    path = set_copy / "manifest.json"
    data = json.loads(path.read_bytes())
    del data["files"], data["manifest_sha256"]
    path.write_text(render_with_hash(data))
    assert_refused(set_copy, "files: missing key")


@pytest.mark.parametrize(
    "order",
    [
        ("train",),
        ("train", "test"),
        ("train", "val"),
        ("train", "val", "test"),
    ],
)
def test_splits_in_order_are_accepted(order):
    manifest = make_manifest({split: make_split(split) for split in order})
    assert list(manifest.splits) == list(order)


@pytest.mark.parametrize(
    "order",
    [
        (),
        ("test",),
        ("val", "test"),  # train is always there
        ("test", "train"),
        ("val", "train"),
        ("train", "test", "val"),
        ("test", "val", "train"),
    ],
)
def test_splits_in_another_order_are_refused(order, tmp_path):
    with pytest.raises(ValueError, match="splits: should be train, optionally followed by val and test, in this order"):
        make_manifest({split: make_split(split) for split in order})


@pytest.mark.parametrize("order", [[], ["test", "train"], ["test"]])
def test_file_with_splits_in_another_order_is_refused(order, set_copy):
    rewrite_manifest(
        set_copy / "manifest.json", lambda data: {"splits": {split: data["splits"][split] for split in order}}
    )
    got = json.dumps(order).replace('"', "'")
    assert_refused(set_copy, f"splits: should be train, optionally followed by val and test, in this order, got {got}")


def test_split_of_another_name_is_refused(set_copy):
    rewrite_manifest(
        set_copy / "manifest.json", lambda data: {"splits": data["splits"] | {"valid": data["splits"]["test"]}}
    )
    assert_refused(set_copy, "splits: keys should be among the allowed names")


def test_samples_that_do_not_add_up_are_refused(set_copy):
    def add_a_sample(data):
        data["splits"]["train"]["samples"] += 1
        return {}

    rewrite_manifest(set_copy / "manifest.json", add_a_sample)
    assert_refused(set_copy, "splits.*.samples: should be 120, the sum over the shards")


def test_split_without_samples_is_refused(set_copy):
    rewrite_manifest(
        set_copy / "manifest.json", lambda data: {"splits": data["splits"] | {"test": {"samples": 0, "shards": []}}}
    )
    assert_refused(set_copy, "splits.*.samples: should be a whole number >= 1")


UNSAFE_PATHS = [
    "../images.npy",
    "test/../../images.npy",
    "/etc/passwd",
    "train//images.npy",
    "test/.hidden",
    "other/images.npy",
    "train\\images.npy",
    "C:images.npy",
    "train/images.npy\n",
    "",
]


@pytest.mark.parametrize("path", UNSAFE_PATHS)
def test_shard_path_cannot_leave_the_set(path, set_copy):
    def move_shard(data):
        data["splits"]["test"]["shards"][0]["images"]["path"] = path
        return {}

    rewrite_manifest(set_copy / "manifest.json", move_shard)
    assert_refused(set_copy, "splits.*.shards.0.images.path: should be a string matching")


@pytest.mark.parametrize("path", UNSAFE_PATHS)
def test_card_path_cannot_leave_the_set(path, set_copy):
    rewrite_manifest(
        set_copy / "manifest.json", lambda data: {"files": [{"path": path, "bytes": 1, "sha256": "0" * 64}]}
    )
    assert_refused(set_copy, "files.0.path: should be a string matching")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"dataset": "synthetic"', '"dataset": "cifar10"'),  # valid, but not what was hashed
        lambda text: text[: text.index(',\n  "manifest_sha256"')] + "\n}\n",  # without the hash
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("  ", "\t"),
        lambda text: text + "\n",
        lambda text: text.replace('"format_version"', '"format_version": 2,\n  "format_version"'),
    ],
    ids=["another name", "no hash", "CRLF", "tabs", "one more newline", "duplicate key"],
)
def test_changed_text_is_refused(change, set_copy):
    path = set_copy / "manifest.json"
    text = path.read_text()
    path.write_bytes(change(text).encode())
    assert path.read_bytes() != text.encode()
    assert_refused(set_copy, "the text doesn't match its manifest_sha256")


@given(st.data())
def test_any_changed_byte_is_refused(tiny_raw, tmp_path_factory, data):
    content = bytearray((tiny_raw / "manifest.json").read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("changed")
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptDataError):
        load_manifest(path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 200_000, b"[]", b"null", b'{"format_version":'])
def test_malformed_file_is_refused_in_one_line(content, set_copy):
    (set_copy / "manifest.json").write_bytes(content)
    assert_refused(set_copy, "")


def test_missing_manifest_means_an_incomplete_set(set_copy):
    (set_copy / "manifest.json").unlink()
    with pytest.raises(CorruptDataError, match=r"manifest\.json: missing, so .*set is not a complete shard set"):
        open_shards(set_copy)


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "shards").touch()
    with pytest.raises(CorruptDataError, match="shards is not a complete shard set"):
        open_shards(tmp_path / "shards")


def test_unreadable_manifest_raises_os_error(set_copy):
    path = set_copy / "manifest.json"
    path.unlink()
    path.mkdir()
    with pytest.raises((IsADirectoryError, PermissionError)):  # the latter on Windows
        open_shards(set_copy)


def test_summary_lists_splits_shape_and_size():
    splits = {"train": make_split("train", (1000, 500)), "val": make_split("val", (20,))}
    assert make_manifest(splits).summary() == "made up, 1,500 train, 20 val, 3x32x32 uint8, 0 MB in 3 shards"
    assert make_manifest({"train": make_split()}).summary() == "made up, 3 train, 3x32x32 uint8, 0 MB in 2 shards"


def test_shard_files_are_listed_in_sample_order():
    manifest = make_manifest({"train": make_split("train", (2, 1)), "test": make_split("test", (4,))})
    assert [file.path for file in manifest.shard_files()] == [
        "train/images-00000-of-00002.npy",
        "train/labels-00000-of-00002.npy",
        "train/images-00001-of-00002.npy",
        "train/labels-00001-of-00002.npy",
        "test/images-00000-of-00001.npy",
        "test/labels-00000-of-00001.npy",
    ]
    assert manifest.num_bytes == 2 * (2 + 1 + 4)


def test_duplicate_class_names_are_refused():
    with pytest.raises(ValueError, match="classes: should be unique names"):
        make_manifest({"train": make_split()}, classes=("cat", "cat"))
    replace(make_manifest({"train": make_split()}), classes=("cat", "Cat"))


def test_format_version_1_is_not_reported_as_damaged(set_copy):
    path = set_copy / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    message = "has format version 1, but only version 2 can be read. Rebuild the set."
    with pytest.raises(CorruptDataError, match=message) as caught:
        open_shards(set_copy)
    assert not isinstance(caught.value, DamagedFileError)
