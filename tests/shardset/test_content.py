import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardset.content import hash_content, hash_images
from shardset.shards import open_shards
from tests.helpers.shard_sets import read_images

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
labels = st.lists(st.integers(0, 2**63 - 1), min_size=5, max_size=5)


def hash_plainly(splits):
    """`content_sha256` as the documentation words it: sample by sample, without numpy's help."""
    content = hashlib.sha256()
    for of_images, of_labels in splits:
        for image, label in zip(of_images, of_labels, strict=True):
            content.update(hashlib.sha256(bytes(image.ravel().tolist())).digest())
            content.update(struct.pack("<q", label))
    return content.hexdigest()


@given(st.lists(st.tuples(images, labels), min_size=1, max_size=3))
def test_content_hash_is_that_of_a_plain_loop(splits):
    splits = [(of_images, of_labels[: len(of_images)]) for of_images, of_labels in splits]
    arrays = [(hash_images(of_images), np.array(of_labels, np.int64)) for of_images, of_labels in splits]
    assert hash_content(arrays) == hash_plainly(splits)


@given(images)
def test_digest_is_that_of_the_pixels_in_c_order(array):
    expected = [hashlib.sha256(image.tobytes()).digest() for image in array]
    for same in (array, np.asfortranarray(array), array[:, ::-1][:, ::-1]):
        digests = hash_images(same)
        assert (digests.dtype, digests.shape) == (np.uint8, (len(array), 32))
        assert [bytes(digest) for digest in digests] == expected


def test_equal_images_have_equal_digests():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)[[0, 1, 0]]
    first, second, third = (bytes(digest) for digest in hash_images(array))
    assert first == third != second


def test_no_images_have_no_digests():
    assert hash_images(np.empty((0, 3, 2, 2), np.uint8)).shape == (0, 32)


def test_labels_of_big_endian_machines_hash_the_same():
    digests = hash_images(np.zeros((3, 1, 1, 1), np.uint8))
    numbers = np.array([1, 2, 300])
    assert hash_content([(digests, numbers.astype(">i8"))]) == hash_content([(digests, numbers)])


@pytest.mark.parametrize("change", ["pixel", "label", "order", "split"])
def test_any_change_of_the_data_changes_the_hash(change):
    array, numbers = np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2), np.arange(4)
    expected = hash_content([(hash_images(array), numbers)])
    if change == "pixel":
        array = array ^ np.eye(12, dtype=np.uint8)[:4].reshape(array.shape)
    elif change == "label":
        numbers = numbers + np.array([0, 0, 0, 1])
    elif change == "order":
        array, numbers = array[::-1], numbers[::-1]
    else:
        array, numbers = array[:3], numbers[:3]
    assert hash_content([(hash_images(array), numbers)]) != expected


def test_manifest_has_the_hash_of_the_arrays(split_set):
    splits = [(read_images(split_set, split), split_set.labels(split)) for split in split_set.manifest.splits]
    assert hash_plainly(splits) == split_set.manifest.content_sha256


@pytest.mark.slow
def test_content_hash_does_not_depend_on_shard_size(synthetic_raw):
    shards = open_shards(synthetic_raw)
    splits = [(read_images(shards, split), shards.labels(split)) for split in ("train", "test")]
    assert hash_plainly(splits) == shards.manifest.content_sha256


def test_hash_of_many_samples_is_that_of_all_their_bytes():
    rng = np.random.default_rng(0)
    digests, labels = rng.integers(0, 256, (150_000, 32), np.uint8), rng.integers(0, 1000, 150_000)
    samples = b"".join(
        digest.tobytes() + int(label).to_bytes(8, "little") for digest, label in zip(digests, labels, strict=True)
    )
    assert hash_content([(digests, labels)]) == hashlib.sha256(samples).hexdigest()
    assert hash_content([(digests[:70_001], labels[:70_001]), (digests[70_001:], labels[70_001:])]) == (
        hash_content([(digests, labels)])
    )
