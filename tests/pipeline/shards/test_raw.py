from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.runtime.resume import resume_dir
from pipeline.runtime.tasks import Tally, map_tasks
from pipeline.shards.raw import check_content, open_decoded, use_as_set, write_samples
from shardset.content import hash_images
from shardset.errors import CorruptDataError
from shardset.manifest import Preparation
from shardset.shards import verify_shards
from shardset.threads import ignore
from tests.helpers.shard_sets import content_hash, make_images, save_manifest
from tests.helpers.task_sizes import recording_sizes
from tests.helpers.workspace import hash_files

IMAGES = make_images(30, (3, 8, 8))
LABELS = np.arange(30) % 3


@dataclass(frozen=True)
class Reader:
    """Reads `IMAGES`, and notes what is read; with `is_same` false, the source is another one than before."""

    is_same: bool
    read: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def labels(self, split, start, stop):
        return LABELS[start:stop]

    def blocks(self, split, start, stop, imap):
        self.read.append((start, stop))
        for index in range(start, stop):
            yield IMAGES[index : index + 1], [f"fact {index}"]

    def is_unchanged(self, split, start, stop, facts, imap):
        assert f"fact {start}".encode() in facts
        return self.is_same


@dataclass(frozen=True)
class Samples:
    reader: Reader
    preparation: Preparation | None = None
    classes = ("a", "b", "c")
    channels = ("red", "green", "blue")
    image_shape = (3, 8, 8)
    num_samples = {"train": 30}  # noqa: RUF012
    inputs = None


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 7)


def write(work_dir, samples, workers=map_tasks, progress=ignore, **options):
    tally = Tally(progress, "Decoding", 30)
    return write_samples(open_decoded(work_dir, "made", samples), "made", samples, workers, tally, **options)


@pytest.mark.parametrize("on_cluster", [False, True])
@pytest.mark.parametrize("resize", [None, 8])
def test_samples_are_written_with_digests_and_facts(resize, on_cluster, tmp_path):
    preparation = resize and Preparation(
        resize=resize, size=8, filter="bilinear", orientation="exif", background="white"
    )
    calls = []
    with resume_dir(tmp_path / "raw") as work_dir:
        samples = Samples(Reader(is_same=True), preparation)
        decoded = write(work_dir, samples, progress=lambda *call: calls.append(call), on_cluster=on_cluster)
        assert np.array_equal(decoded.digests()["train"], hash_images(IMAGES))
        assert b"".join(decoded.facts("train")).count(b"fact ") == 30
        save_manifest(decoded.manifest, decoded.step.dir)
        use_as_set(decoded.step)
    raw = verify_shards(tmp_path / "raw")
    assert np.array_equal(raw.take("train", np.arange(30)), IMAGES)
    assert np.array_equal(raw.labels("train"), LABELS)
    assert raw.manifest.content_sha256 == content_hash({"train": IMAGES}, {"train": LABELS})
    assert [shard.samples for shard in raw.shards("train")] == [7, 7, 7, 7, 2]
    assert calls[-1] == ("Decoding", 30, 30)
    assert len(calls) == (5 if on_cluster else 30)


@pytest.mark.parametrize("on_cluster", [False, True])
def test_finished_shards_are_read_again_only_if_the_source_changed(on_cluster, tmp_path):
    first, same, changed = Reader(is_same=True), Reader(is_same=True), Reader(is_same=False)
    before = write(tmp_path, Samples(first), on_cluster=on_cluster).manifest
    files = hash_files(tmp_path)
    (shard_path,) = tmp_path.glob("decoded-*/train/images-00002-of-00005.npy")
    shard_path.unlink()
    calls = []
    again = write(tmp_path, Samples(same), progress=lambda *call: calls.append(call), on_cluster=on_cluster)
    assert same.read == [(14, 21)]
    assert calls[-1] == ("Decoding", 30, 30)
    write(tmp_path, Samples(changed), on_cluster=on_cluster)
    assert sorted(changed.read) == sorted(first.read) == [(0, 7), (7, 14), (14, 21), (21, 28), (28, 30)]
    assert again.manifest == before
    assert hash_files(tmp_path) == files


def test_task_carries_nothing_of_the_whole_dataset(tmp_path):
    sizes: list[int] = []
    write(tmp_path, Samples(Reader(is_same=True)), recording_sizes(sizes), on_cluster=True)
    assert len(sizes) == 5
    assert max(sizes) < 1000


def test_content_that_is_not_the_registered_one_is_refused(tmp_path):
    manifest = write(tmp_path, Samples(Reader(is_same=True))).manifest
    check_content(manifest, None)
    check_content(manifest, manifest.content_sha256)
    with pytest.raises(CorruptDataError, match=f"^made: expected .* content_sha256 x, got {manifest.content_sha256}: "):
        check_content(manifest, "x")
