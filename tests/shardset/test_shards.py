import shutil
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.shards.writer import save_manifest, write_set_file
from pipeline.sources.registry import DATASETS
from shardset import ShardDataset
from shardset.content import hash_content, hash_images
from shardset.errors import CorruptDataError
from shardset.manifest import SplitShards
from shardset.reader import split_range
from shardset.shards import ShardSet, open_shards, verify_shards
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import LITTER, make_images, make_manifest, read_images, write_raw_set


@pytest.fixture(scope="module")
def header_copy(tiny_raw, tmp_path_factory):
    """A copy of the tiny raw set, one file of which is damaged and repaired again and again."""
    return shutil.copytree(tiny_raw, tmp_path_factory.mktemp("header") / "set")


@pytest.fixture
def set_with_card(tmp_path):
    """A raw set with a file besides its shards, to be damaged by one test."""
    shards = write_raw_set(tmp_path / "set", make_images(4), make_images(2, seed=1))
    card = write_set_file(shards.dir, "README.md", "# Made up\n")
    save_manifest(replace(shards.manifest, files=(card,)), shards.dir)
    return open_shards(shards.dir)


@pytest.mark.parametrize(
    ("start", "stop", "size", "ranges"),
    [
        (0, 6, 3, [(0, 3), (3, 6)]),
        (0, 7, 3, [(0, 3), (3, 6), (6, 7)]),  # the last one is shorter
        (2, 5, 9, [(2, 5)]),  # the size exceeds the range
        (4, 4, 3, []),  # the range is empty
    ],
)
def test_split_range(start, stop, size, ranges):
    assert split_range(start, stop, size) == ranges


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1001))
def test_ranges_partition_what_they_split(start, length, size):
    ranges = split_range(start, start + length, size)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(start, start + length))


def test_complete_set_verifies(synthetic_raw):
    shards = verify_shards(synthetic_raw)
    arrays = [(hash_images(read_images(shards, split)), shards.labels(split)) for split in ("train", "test")]
    assert hash_content(arrays) == shards.manifest.content_sha256 == DATASETS["synthetic"].content_sha256


def test_set_of_any_splits_verifies_and_keeps_its_order(split_set, split_images):
    shards = verify_shards(str(split_set.dir))
    assert shards.manifest == split_set.manifest
    assert sorted(path.name for path in shards.dir.iterdir()) == sorted(["manifest.json", *shards.manifest.splits])
    for split in shards.manifest.splits:
        assert np.array_equal(read_images(shards, split), split_images[split])
        assert np.array_equal(shards.labels(split), np.arange(len(split_images[split])) % 2)


def test_repr_shows_the_folder_and_the_splits(split_set):
    splits = split_set.manifest.splits
    sizes = ", ".join(f"{of_split.samples} {split}" for split, of_split in splits.items())
    shards = "1 shard" if len(splits) == 1 else f"{len(splits)} shards"
    assert repr(split_set) == f"<ShardSet '{split_set.dir}': made, {sizes}, 3x32x32 uint8, 0 MB in {shards}>"


def test_set_stays_open_when_the_current_folder_changes(tiny_raw, monkeypatch):
    monkeypatch.chdir(tiny_raw.parent)
    shards = open_shards("raw")
    monkeypatch.chdir("/")
    assert len(shards.labels("test")) == 20


def test_plain_numpy_reads_a_shard(synthetic_raw):
    images = np.load(synthetic_raw / "train/images-00001-of-00002.npy", mmap_mode="r")
    labels = np.load(synthetic_raw / "train/labels-00001-of-00002.npy")
    assert (images.dtype, images.shape, labels.dtype, labels.shape) == (np.uint8, (2000, 3, 32, 32), np.int64, (2000,))


def test_ranges_of_shards_are_those_of_their_samples(synthetic_raw):
    shards = open_shards(synthetic_raw)
    assert [(start, stop) for _, start, stop in shards.ranges("train")] == [(0, 10_000), (10_000, 12_000)]
    assert [shard for shard, _, _ in shards.ranges("train")] == list(shards.shards("train"))


@given(st.lists(st.integers(0, 11_999), max_size=20))
def test_taken_images_are_those_of_the_indices(synthetic_raw, indices):
    shards = open_shards(synthetic_raw)
    files = [np.load(synthetic_raw / f"train/images-0000{i}-of-00002.npy", mmap_mode="r") for i in (0, 1)]
    taken = shards.take("train", np.array(indices, np.int64))
    assert taken.shape == (len(indices), 3, 32, 32)
    for image, index in zip(taken, indices, strict=True):
        assert np.array_equal(image, files[index // 10_000][index % 10_000])


def test_mapped_images_are_read_only(tiny_raw):
    shards = open_shards(tiny_raw)
    images = shards.images(shards.shards("test")[0])
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0, 0] = 1


def test_verified_blocks_are_all_images_of_a_shard(synthetic_raw):
    shards = open_shards(synthetic_raw)
    for shard in (*shards.shards("train"), *shards.shards("test")):
        blocks = [block.copy() for block in shards.verified_image_blocks(shard)]
        assert [len(block) for block in blocks[:-1]] == [shards.block_samples] * (len(blocks) - 1)
        assert np.array_equal(np.concatenate(blocks), np.load(synthetic_raw / shard.images.path))


def test_verified_blocks_end_with_an_error_for_a_flipped_bit(set_copy):
    damage(set_copy / "test/images-00000-of-00001.npy", "a flipped bit")
    shards = open_shards(set_copy)
    blocks = shards.verified_image_blocks(shards.shards("test")[0])
    with pytest.raises(CorruptDataError, match=r"test/images-00000-of-00001\.npy: expected SHA-256 \w{64}, got \w{64}"):
        list(blocks)


def test_image_larger_than_a_block_is_a_block(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 700, 700), np.uint8)
    shards = write_raw_set(tmp_path / "set", images)
    assert shards.block_samples == 1
    blocks = [block.copy() for block in shards.verified_image_blocks(shards.shards("train")[0])]
    assert np.array_equal(np.concatenate(blocks), images)
    verify_shards(shards.dir)


def replace_manifest(shards, **changes):
    return ShardSet(shards.dir, replace(shards.manifest, **changes))


def damage(path, how):
    content = path.read_bytes()
    if how == "a flipped bit":
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    elif how == "a cut end":
        path.write_bytes(content[:-1])
    elif how == "bytes added":
        path.write_bytes(content + b"\0")
    elif how == "an empty file":
        path.write_bytes(b"")
    elif how == "a changed header":
        path.write_bytes(content.replace(b"False", b"True ", 1))
    elif how == "another format":
        path.write_bytes(b"PK\x03\x04" + content[4:])
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()


@pytest.mark.parametrize("name", ["train/images-00001-of-00002.npy", "test/labels-00000-of-00001.npy"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a flipped bit", "expected SHA-256 "),
        ("a cut end", "expected "),
        ("bytes added", "expected "),
        ("an empty file", "expected "),
        ("a changed header", "not an .npy file of "),
        ("another format", "not an .npy file of "),
        ("no file", "missing"),
        ("a folder", "a folder, not a file"),
    ],
)
def test_damaged_shard_is_named_and_no_other(name, how, message, set_copy):
    damage(set_copy / name, how)
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(set_copy)
    assert str(caught.value).startswith(f"{set_copy} differs from its manifest:\n  {set_copy / name}: {message}")
    assert str(caught.value).endswith("\nRestore these files from the original source.")
    assert str(caught.value).count(".npy:") == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a flipped bit", "expected SHA-256 "),
        ("a cut end", "expected 10 bytes, got 9"),
        ("bytes added", "expected 10 bytes, got 11"),
        ("no file", "missing"),
        ("a folder", "a folder, not a file"),
    ],
)
def test_damaged_card_is_named(how, message, set_with_card):
    verify_shards(set_with_card.dir)
    damage(set_with_card.dir / "README.md", how)
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(set_with_card.dir)
    assert f"\n  {set_with_card.dir / 'README.md'}: {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "train/images-00001-of-00001.npy", "val/extra", ".hidden"])
def test_unlisted_file_is_refused(name, split_set, tmp_path):
    set_dir = shutil.copytree(split_set.dir, tmp_path / "set")
    (set_dir / name).parent.mkdir(exist_ok=True)
    (set_dir / name).write_text("x")
    open_shards(set_dir)
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(set_dir)
    assert str(caught.value).splitlines()[1:-1] == [f"  {set_dir / name}: not in the manifest"]


def test_unlisted_link_is_refused(set_copy):
    (set_copy / "train/link").symlink_to("nowhere")
    with pytest.raises(CorruptDataError, match="train/link: not in the manifest"):
        verify_shards(set_copy)


def test_every_damaged_file_is_named(set_copy):
    names = ["test/images-00000-of-00001.npy", "train/images-00000-of-00002.npy", "train/labels-00000-of-00002.npy"]
    for name in names:
        damage(set_copy / name, "a flipped bit")
    (set_copy / "train/extra.npy").touch()
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(set_copy)
    found = [line.split(": ")[0].removeprefix(f"  {set_copy}/") for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(found) == sorted([*names, "train/extra.npy"])


def test_excluded_files_are_not_read(set_copy):
    damage(set_copy / "test/images-00000-of-00001.npy", "no file")
    shards = open_shards(set_copy)
    shards.verify(exclude={shard.images for shard in shards.shards("test")})
    with pytest.raises(CorruptDataError, match="missing"):
        shards.verify(exclude={shard.labels for shard in shards.shards("test")})


@given(st.integers(0, 127), st.integers(0, 255))
def test_any_changed_byte_in_a_header_is_found(tiny_raw, header_copy, position, byte):
    path = header_copy / "test/labels-00000-of-00001.npy"
    content = (tiny_raw / "test/labels-00000-of-00001.npy").read_bytes()
    path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
    if byte == content[position]:
        verify_shards(header_copy)
    else:
        with pytest.raises(CorruptDataError, match=r"test/labels-00000-of-00001\.npy: not an \.npy file of int64"):
            verify_shards(header_copy)


def test_labels_of_many_shards_need_few_open_files(tmp_path):
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    labels = {"train": np.arange(300), "test": np.arange(1)}
    images = {split: np.zeros((len(of_split), 1, 1, 1), np.uint8) for split, of_split in labels.items()}
    splits = write_arrays(tmp_path / "set", images, labels, samples_per_shard=1)
    manifest = make_manifest(splits, image_shape=(1, 1, 1), channels=("gray",))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert np.array_equal(ShardSet(tmp_path / "set", manifest).labels("train"), labels["train"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_label_outside_the_classes_is_found(tmp_path):
    labels = {"train": np.array([0, 10]), "test": np.array([-1])}
    images = {split: np.zeros((len(of_split), 3, 32, 32), np.uint8) for split, of_split in labels.items()}
    splits = write_arrays(tmp_path / "set", images, labels, samples_per_shard=9)
    save_manifest(make_manifest(splits), tmp_path / "set")  # with the right hashes
    with pytest.raises(CorruptDataError, match=r"train/labels.*labels should be in \[0, 10\)") as caught:
        verify_shards(tmp_path / "set")
    assert "test/labels" in str(caught.value)


def test_content_hash_of_other_pixels_is_found(set_copy):
    manifest = open_shards(set_copy).manifest
    save_manifest(replace(manifest, content_sha256="0" * 64), set_copy)
    with pytest.raises(
        CorruptDataError,
        match=rf"manifest\.json: content_sha256: expected 0{{64}}, but the shards have {manifest.content_sha256}",
    ):
        verify_shards(set_copy)


def test_content_hash_follows_the_order_of_the_splits(split_set):
    splits = list(split_set.manifest.splits)
    digests = {split: hash_images(read_images(split_set, split)) for split in reversed(splits)}
    split_set.check_content(digests)
    if len(splits) > 1:
        reversed_hash = hash_content((digests[split], split_set.labels(split)) for split in digests)
        with pytest.raises(CorruptDataError, match="content_sha256: expected"):
            replace_manifest(split_set, content_sha256=reversed_hash).check_content(digests)


def test_replaced_set_is_noticed(set_copy, split_set):
    shards = open_shards(set_copy)
    shards.check_unchanged()
    shutil.rmtree(set_copy)
    shutil.copytree(split_set.dir, set_copy)
    with pytest.raises(CorruptDataError, match="was replaced by another set while it was being read. Run this again."):
        shards.check_unchanged()


@pytest.mark.parametrize("name", LITTER)
@pytest.mark.parametrize("folder", [".", "train"])
def test_litter_of_programs_is_ignored(name, folder, set_copy):
    path = set_copy / folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch()
    verify_shards(set_copy)
    ShardDataset(set_copy, verify="hash")


@pytest.mark.parametrize("name", ["DS_Store", "x._y", "nfs1", "Thumbs.db.npy", "x/.hidden", "x.tmp"])
def test_names_like_litter_are_refused(name, set_copy):
    (set_copy / name).parent.mkdir(exist_ok=True)
    (set_copy / name).touch()
    with pytest.raises(CorruptDataError, match=f"{name}: not in the manifest"):
        verify_shards(set_copy)


def test_split_on_another_disk_is_read_through_its_link(set_copy, tmp_path):
    (set_copy / "train").rename(tmp_path / "elsewhere")
    (set_copy / "train").symlink_to(tmp_path / "elsewhere")
    verify_shards(set_copy)


def cpu_time(function):
    start = time.process_time()
    for _ in range(20):
        function()
    return time.process_time() - start


def test_time_of_a_read_does_not_depend_on_the_number_of_shards(tiny_raw):
    def read(number_of_shards):
        shard = open_shards(tiny_raw).shards("test")[0]
        split = SplitShards(samples=number_of_shards * shard.samples, shards=(shard,) * number_of_shards)
        many = replace_manifest(open_shards(tiny_raw), splits={"train": split})
        middle = many.manifest.splits["train"].samples // 2
        many.ranges_with("train", 0, 1)  # prepares the search
        return cpu_time(lambda: many.take("train", np.array([middle, 1]))) + cpu_time(
            lambda: many.ranges_with("train", middle, middle + 30)
        )

    assert read(100_000) < 20 * read(10)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9), st.data())
def test_ranges_with_samples_are_those_that_overlap(tiny_raw, sizes, data):
    shard = open_shards(tiny_raw).shards("test")[0]
    shards = tuple(replace(shard, samples=size) for size in sizes)
    split = SplitShards(samples=sum(sizes), shards=shards)
    many = replace_manifest(open_shards(tiny_raw), splits={"train": split})
    start = data.draw(st.integers(0, sum(sizes) - 1))
    stop = data.draw(st.integers(start + 1, sum(sizes)))
    expected = [item for item in many.ranges("train") if item[1] < stop and start < item[2]]
    assert many.ranges_with("train", start, stop) == expected
