"""Stage `download` with a dataset of image files."""

import csv
import hashlib
import re

import numpy as np
import pytest
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset import ShardDataset
from shardset.errors import DamagedFileError, InputError
from shardset.shards import verify_shards
from tests.helpers.image_files import make_image_folder, make_tar, make_zip, save_picture
from tests.helpers.shard_sets import audit, download, make_params, read_images
from tests.helpers.workspace import REPOSITORY, hash_files


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "pictures")


@pytest.fixture
def take(tmp_path):
    """Run the stage and return the verified set."""

    def run(source, **images):
        download("images", tmp_path / "raw", tmp_path / "archives", source, **images)
        return verify_shards(tmp_path / "raw")

    return run


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_samples_are_those_of_torchvision_in_its_order(folder, take):
    raw = take(folder, orientation="ignore")
    transform = Compose([Resize(36), CenterCrop(32), PILToTensor()])
    for split in ("train", "val", "test"):
        theirs = ImageFolder(folder / split, transform)
        assert list(raw.manifest.classes) == theirs.classes
        assert np.array_equal(read_images(raw, split), np.stack([image.numpy() for image, _ in theirs]))
        assert raw.labels(split).tolist() == theirs.targets
        assert [f"{folder}/{name}" for name in raw.sources(split)] == [path for path, _ in theirs.samples]


def test_archives_give_the_same_set_as_the_folder(folder, take, tmp_path):
    expected = take(folder)
    before = hash_files(expected.dir)
    for archive in (make_tar(folder, tmp_path / "a.tar"), make_zip(folder, tmp_path / "a.zip")):
        take(archive)
        assert hash_files(expected.dir) == before


def test_second_run_gives_the_same_bytes(folder, take):
    before = hash_files(take(folder).dir)
    assert hash_files(take(folder).dir) == before


def test_set_records_its_preparation(folder, take):
    preparation = take(folder, size=24, resize=31, orientation="ignore").manifest.preparation
    assert (preparation.size, preparation.resize, preparation.filter) == (24, 31, "bilinear")
    assert (preparation.orientation, preparation.background) == ("ignore", "white")


def test_samples_are_traced_to_their_files(folder, take):
    raw = take(folder)
    for split in ("train", "val", "test"):
        rows = read_rows(raw.dir / split / "samples.csv")
        for index, row in enumerate(rows):
            assert row["index"] == str(index)
            assert row["sha256"] == hashlib.sha256((folder / row["source"]).read_bytes()).hexdigest()
            assert raw.manifest.classes[int(row["label"])] == row["source"].split("/")[1]
        assert len(rows) == raw.manifest.splits[split].samples


def damage(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_all_unreadable_images_are_listed_at_once(folder, take, tmp_path):
    damage(folder / "train/cat/1.jpg")
    (folder / "test/dog/2.jpg").write_bytes(b"<html>")
    with pytest.raises(InputError) as caught:
        take(folder)
    first, *listed, last = str(caught.value).splitlines()
    assert first == "2 images can't be read:"
    assert listed[0].startswith("  train/cat/1.jpg: image file is truncated")
    assert listed[1].startswith("  test/dog/2.jpg: not an image")
    assert "images.unreadable" in last
    assert not (tmp_path / "raw").exists()


def test_skipped_images_are_recorded_and_no_other_is_lost(folder, take):
    everything = take(folder)
    kept = np.delete(read_images(everything, "train"), 1, axis=0)
    damage(folder / "train/cat/1.jpg")
    raw = take(folder, unreadable="skip")
    assert raw.manifest.skipped == 1
    (row,) = read_rows(raw.dir / "skipped.csv")
    assert row["source"] == "train/cat/1.jpg"
    assert row["reason"].startswith("image file is truncated")
    assert np.array_equal(read_images(raw, "train"), kept)
    assert raw.sources("train")[:2] == ("train/cat/0.jpg", "train/cat/2.jpg")
    assert everything.manifest.skipped == 0


def test_unusable_source_keeps_the_previous_set(folder, take, tmp_path):
    take(folder)
    before = hash_files(tmp_path / "raw")
    (folder / "train/empty").mkdir()
    with pytest.raises(InputError, match="class 'empty' has no images"):
        take(folder)
    assert hash_files(tmp_path / "raw") == before


def test_fractions_make_splits_that_a_source_lacks(take, tmp_path):
    folder = make_image_folder(tmp_path / "flat", splits=("",), each=40)
    raw = take(folder, test_fraction=0.2, val_fraction=0.2)
    assert tuple(raw.manifest.splits) == ("train", "val", "test")
    names = [name for split in raw.manifest.splits for name in raw.sources(split)]
    assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    with pytest.raises(InputError, match="val_fraction: should be null"):
        take(make_image_folder(tmp_path / "split", splits=("train", "val")), val_fraction=0.2)


def test_set_of_grey_images_has_one_channel(take, tmp_path):
    for seed in range(4):
        save_picture(tmp_path / f"grey/a/{seed}.png", seed, mode="L")
    assert take(tmp_path / "grey").manifest.channels == ("grey",)
    save_picture(tmp_path / "grey/a/5.png", 5)
    raw = take(tmp_path / "grey")
    assert raw.manifest.channels == ("red", "green", "blue")
    red, green, blue = read_images(raw, "train")[0]
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_shards_and_report_are_made_from_three_splits(folder, take, tmp_path):
    damage(folder / "val/cat/1.jpg")
    raw = take(folder, unreadable="skip")
    write_stats(raw.dir, tmp_path / "stats.json")
    manifest = normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", make_params())
    assert manifest.preparation == raw.manifest.preparation
    assert manifest.skipped == 1
    for name in ("train/samples.csv", "val/samples.csv", "test/samples.csv", "skipped.csv"):
        assert (tmp_path / "shards" / name).read_bytes() == (raw.dir / name).read_bytes()
    verify_shards(tmp_path / "shards")
    audit(raw.dir, tmp_path / "audit")
    write_report(raw.dir, tmp_path / "audit", tmp_path / "shards", tmp_path / "report", decimals=4)
    text = (tmp_path / "report/report.md").read_text()
    assert "5 val" in text
    assert "| short side resized to 36, centre of 32 x 32 pixels |" in text
    assert "1 image file could not be read and was skipped." in text
    with ShardDataset(tmp_path / "shards", "val") as val:
        assert val.sources == raw.sources("val")
        assert val.sources[1] == "val/cat/2.jpg"


def test_damaged_list_of_samples_is_found(folder, take):
    raw = take(folder)
    path = raw.dir / "train/samples.csv"
    path.write_text(path.read_text().replace("cat/0", "cat/9"))
    with pytest.raises(DamagedFileError, match="train/samples.csv: expected SHA-256"):
        raw.sources("train")


def test_documented_messages_are_those_of_the_code():
    page = (REPOSITORY / "docs/own-images.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page[page.index("## What errors mean") :], re.MULTILINE)
    source = " ".join(path.read_text() for path in sorted((REPOSITORY / "pipeline").rglob("*.py")))
    source = re.sub(r'"\s+f?"', "", source)  # strings that go on in the next line
    for message in messages:
        for part in message.split("..."):
            assert part.strip() in source or "truncated" in part, message  # Pillow says that an image is truncated
    assert len(messages) > 5
