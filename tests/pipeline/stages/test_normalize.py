import errno
import json
import os
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.remedies import REPAIR_HINT
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Scheme
from shardset.shards import ShardSet, open_shards
from tests.helpers.shard_sets import make_images, make_params, read_images, write_raw_set
from tests.helpers.workspace import hash_files


def torchvision_values(pixels, normalization):
    """(N, 3, H, W) uint8 through torchvision's own transforms, one image at a time."""
    from torchvision import transforms  # imported here, so that a run without the slow tests starts fast

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalization.mean, normalization.std)])
    return torch.stack([transform(Image.fromarray(image)) for image in pixels.transpose(0, 2, 3, 1)]).numpy()


@pytest.fixture
def normalize_tiny(tiny_raw, tmp_path):
    """A function that normalizes the tiny dataset and returns the shard set."""
    write_stats(tiny_raw, tmp_path / "stats.json")

    def normalize(name="shards", **changes):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / name, make_params(**changes))
        return open_shards(tmp_path / name)

    return normalize


@pytest.mark.slow
@pytest.mark.parametrize("scheme", get_args(Scheme))
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_shards_hold_each_sample_as_torchvision_makes_it(scheme, dtype, tiny, normalize_tiny):
    shards = normalize_tiny(scheme=scheme, dtype=dtype, samples_per_shard=30)
    assert shards.manifest.content_sha256 == tiny.content_sha256
    for split, (pixels, labels) in (("train", tiny.train), ("test", tiny.test)):
        values = torchvision_values(pixels, shards.manifest.normalization)
        images = read_images(shards, split)
        assert images.dtype == dtype
        expected = {"float32": values, "float16": torch.from_numpy(values).half().numpy(), "uint8": pixels}[dtype]
        assert images.tobytes() == expected.tobytes()
        assert np.array_equal(shards.labels(split), labels)


@pytest.mark.parametrize("samples_per_shard", [1, 30, 99, 100, 10**9])
def test_shard_size_changes_files_but_no_samples(samples_per_shard, tiny, normalize_tiny):
    shards = normalize_tiny(samples_per_shard=samples_per_shard, dtype="uint8")
    shards.verify()
    for split, (pixels, labels) in (("train", tiny.train), ("test", tiny.test)):
        sizes = [shard.samples for shard in shards.shards(split)]
        assert all(size == samples_per_shard for size in sizes[:-1])
        assert 0 < sizes[-1] <= samples_per_shard
        assert np.array_equal(read_images(shards, split), pixels)
        assert np.array_equal(shards.labels(split), labels)


@pytest.mark.parametrize("others", [(), ("val",), ("test",), ("val", "test")], ids="+".join)
def test_each_split_of_the_raw_set_is_normalized(others, tmp_path):
    images = {split: make_images(9 + seed, seed=seed) for seed, split in enumerate(("train", *others))}
    raw = write_raw_set(tmp_path / "raw", **images)
    write_stats(raw.dir, tmp_path / "stats.json")
    params = make_params(dtype="uint8", samples_per_shard=4)
    manifest = normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", params)
    shards = open_shards(tmp_path / "shards")
    shards.verify()
    assert shards.manifest == manifest
    assert list(manifest.splits) == ["train", *others]
    assert manifest.content_sha256 == raw.manifest.content_sha256
    for split, of_split in images.items():
        assert np.array_equal(read_images(shards, split), of_split)
        assert np.array_equal(shards.labels(split), raw.labels(split))


def test_card_is_part_of_the_set(normalize_tiny, tmp_path):
    manifest = normalize_tiny().manifest
    assert [file.path for file in manifest.files] == ["README.md", "croissant.json"]
    card_path = tmp_path / "shards/README.md"
    assert manifest.content_sha256 in card_path.read_text()
    card_path.write_text(card_path.read_text().replace("tiny", "Tiny"))
    with pytest.raises(CorruptDataError, match=r"README\.md: expected SHA-256"):
        open_shards(tmp_path / "shards").verify()


def test_same_params_give_the_same_bytes(normalize_tiny, tmp_path):
    for name in ("one", "two"):
        normalize_tiny(name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*"))
    assert len(files) == 2 + 2 * 2 + 3  # two folders, images and labels of each split, manifest and card
    for file in files:
        if (tmp_path / "one" / file).is_file():
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_old_shards_are_replaced_but_not_written_into(normalize_tiny, tmp_path):
    normalize_tiny(scheme="unit")
    in_cache = tmp_path / "cache.npy"
    shard = tmp_path / "shards/test/images-00000-of-00001.npy"
    in_cache.hardlink_to(shard)
    in_cache.chmod(0o444)
    before = in_cache.read_bytes()
    (tmp_path / "shards/left-over").touch()
    normalize_tiny(scheme="symmetric").verify()
    assert in_cache.read_bytes() == before
    assert shard.read_bytes() != before


@pytest.mark.parametrize(("std", "dtype"), [(1e-46, "float32"), (1e-39, "float32"), (1e-6, "float16")])
def test_std_that_makes_values_overflow_is_rejected(std, dtype, normalize_tiny, tmp_path):
    message = f"params.yaml: normalize.scheme: scheme 'custom' gives values that {dtype} can't hold"
    with pytest.raises(InputError, match=message):
        normalize_tiny(scheme="custom", mean=(0.5, 0.5, 0.5), std=(1, 1, std), dtype=dtype)
    assert not (tmp_path / "shards").exists()


def test_custom_mean_of_too_few_channels_is_rejected(normalize_tiny, tmp_path):
    message = "params.yaml: normalize.scheme: scheme 'custom' has 2 means and 2 stds, but the images have 3 channels"
    with pytest.raises(InputError, match=message):
        normalize_tiny(scheme="custom", mean=(0.1, 0.2), std=(0.4, 0.5))
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "other"}, "not the statistics of .*/raw: run `dvc repro --force stats`"),
        ({"mean": {"gray": 0.5}}, "std: should have the channels of mean.*: run `dvc repro`"),
        ({"std": {}}, "std: should have the channels of mean.*: run `dvc repro`"),
    ],
)
def test_statistics_of_other_data_are_rejected(change, message, tiny_raw, tmp_path):
    stats = to_builtins(write_stats(tiny_raw, tmp_path / "stats.json"))
    (tmp_path / "stats.json").write_text(json.dumps(stats | change))
    with pytest.raises(InputError, match=rf"stats\.json: {message}"):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())


def test_missing_statistics_are_reported_with_a_remedy(tiny_raw, tmp_path):
    with pytest.raises(InputError, match=r"stats\.json: no such file: run `dvc repro`"):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())


def test_incomplete_raw_set_leaves_the_old_shards_in_place(tiny_raw, normalize_tiny, tmp_path):
    shards = normalize_tiny()
    raw_dir = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw_dir)
    (raw_dir / "test/labels-00000-of-00001.npy").unlink()
    with pytest.raises(CorruptDataError, match=r"labels-00000-of-00001\.npy: missing") as failed:
        normalize_shards(raw_dir, tmp_path / "stats.json", tmp_path / "shards", make_params(scheme="unit"))
    assert str(failed.value).endswith(REPAIR_HINT)
    shards.verify()
    assert open_shards(tmp_path / "shards").manifest == shards.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "shards", "stats.json"]


@pytest.mark.parametrize("samples_per_shard", [10_000, 30], ids=["verified on read", "verified before"])
@pytest.mark.parametrize("name", ["train/images", "train/labels", "test/images", "test/labels"])
def test_damaged_raw_file_is_found(name, samples_per_shard, tiny_raw, normalize_tiny, tmp_path):
    shutil.copytree(tiny_raw, tmp_path / "raw")
    path = tmp_path / "raw" / f"{name}-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    params = make_params(samples_per_shard=samples_per_shard)
    with pytest.raises(CorruptDataError, match=f"{path.name}: expected SHA-256"):
        normalize_shards(tmp_path / "raw", tmp_path / "stats.json", tmp_path / "shards", params)
    assert not (tmp_path / "shards").exists()


def test_raw_set_replaced_during_the_run_is_noticed(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 3, 8, 8), np.uint8)
    for name, of_name in zip(("raw", "other"), images, strict=True):
        write_raw_set(tmp_path / name, of_name[:30], of_name[30:])
    write_stats(tmp_path / "raw", tmp_path / "stats.json")
    verify = ShardSet.verify

    def verify_and_swap(self, **options):
        verify(self, **options)
        (tmp_path / "raw").rename(tmp_path / "old")
        (tmp_path / "other").rename(tmp_path / "raw")

    monkeypatch.setattr(ShardSet, "verify", verify_and_swap)
    with pytest.raises(CorruptDataError, match="was replaced by another set while it was being read"):
        normalize_shards(
            tmp_path / "raw", tmp_path / "stats.json", tmp_path / "shards", make_params(samples_per_shard=7)
        )
    assert not (tmp_path / "shards").exists()


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A raw set of four shards. Normalizing it failed at the third one, which is repaired since then."""
    monkeypatch.setenv("PIPELINE_THREADS", "1")
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 30)
    raw = write_raw_set(tmp_path / "raw", make_images(90), make_images(30, seed=1))
    write_stats(raw.dir, tmp_path / "stats.json")
    path = raw.dir / raw.shards("train")[2].images.path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(CorruptDataError, match="images-00002"):
        normalize(tmp_path)
    path.write_bytes(content)
    assert not (tmp_path / "shards").exists()
    return tmp_path


def normalize(path, fresh=False, **changes):
    params = make_params(**{"samples_per_shard": 30} | changes)
    normalize_shards(path / "raw", path / "stats.json", path / "shards", params, fresh=fresh)


def image_times(path):
    """When each file of images was written, by name."""
    return {f"{file.parent.name}/{file.name}": file.stat().st_mtime_ns for file in path.rglob("images-*.npy")}


def test_interrupted_run_goes_on_with_the_same_bytes(interrupted):
    before = image_times(interrupted / ".shards.work.tmp")
    normalize(interrupted)
    after = image_times(interrupted / "shards")
    assert {name for name in after if after[name] == before.get(name)} == {
        "train/images-00000-of-00003.npy",
        "train/images-00001-of-00003.npy",
    }
    resumed = hash_files(interrupted / "shards")
    normalize(interrupted)
    assert hash_files(interrupted / "shards") == resumed
    assert not [*interrupted.glob(".*")]


@pytest.mark.parametrize(
    "changes", [{"scheme": "unit"}, {"dtype": "uint8"}, {"samples_per_shard": 31}, {"fresh": True}], ids=str
)
def test_leftovers_of_other_params_are_not_used(changes, interrupted):
    before = image_times(interrupted / ".shards.work.tmp")
    normalize(interrupted, **changes)
    assert not {*before.values()} & {*image_times(interrupted / "shards").values()}
    resumed = hash_files(interrupted / "shards")
    normalize(interrupted, **changes)
    assert hash_files(interrupted / "shards") == resumed


def test_leftovers_of_other_data_are_not_used(interrupted):
    images = make_images(90, seed=2)
    write_raw_set(interrupted / "raw", images)
    write_stats(interrupted / "raw", interrupted / "stats.json")
    normalize(interrupted, dtype="uint8")
    assert np.array_equal(read_images(open_shards(interrupted / "shards"), "train"), images)


@pytest.mark.parametrize(
    ("changes", "is_shared"), [({}, True), ({"samples_per_shard": 29}, False), ({"dtype": "float16"}, False)]
)
def test_uint8_shards_of_equal_size_are_the_files_of_the_raw_set(changes, is_shared, interrupted):
    normalize(interrupted, **{"dtype": "uint8"} | changes)
    raw, shards = interrupted / "raw", open_shards(interrupted / "shards")
    shards.verify()
    for file in shards.manifest.shard_files():
        twin = raw / file.path
        same = is_shared and "images" in file.path
        assert (twin.exists() and twin.samefile(shards.dir / file.path)) == same


def test_damaged_raw_shard_is_not_shared(interrupted):
    path = interrupted / "raw/train/images-00001-of-00003.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptDataError, match="images-00001"):
        normalize(interrupted, dtype="uint8")


def test_file_system_without_hard_links_gets_copies(interrupted, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    normalize(interrupted, dtype="uint8")
    shards = open_shards(interrupted / "shards")
    shards.verify()
    assert not [file for file in shards.manifest.shard_files() if (shards.dir / file.path).stat().st_nlink > 1]


def test_full_disk_is_seen_before_anything_is_written(tiny_raw, normalize_tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(PipelineError) as raised:
        normalize_tiny()
    assert str(raised.value).startswith(
        f"{tmp_path}/shards: 1.5 MB will be written, but the disk has 0.0 MB free. Set normalize.dtype to uint8 in "
    )
    assert "shards" not in [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(("changes", "is_enough"), [({}, True), ({"samples_per_shard": 29}, False)])
def test_shared_files_need_no_space(changes, is_enough, interrupted, monkeypatch):
    usage = shutil.disk_usage(interrupted)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    if is_enough:
        normalize(interrupted, **{"dtype": "uint8"} | changes)
    else:
        with pytest.raises(PipelineError, match="MB will be written"):
            normalize(interrupted, **{"dtype": "uint8"} | changes)


def test_files_that_can_not_be_shared_need_space(interrupted, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    usage = shutil.disk_usage(interrupted)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PipelineError, match="MB will be written"):
        normalize(interrupted, dtype="uint8")
