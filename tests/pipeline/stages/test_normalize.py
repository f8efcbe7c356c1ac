import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from PIL import Image
from torchvision import transforms

from pipeline.stages.normalize import choose_normalization, normalization_table, normalize_pixels, normalize_shards
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Normalization
from shardset.shards import ShardSet, open_shards
from tests.helpers.shard_sets import make_params, read_images, write_raw_set

SCHEMES = ("dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom")
RGB = ("red", "green", "blue")


def torchvision_values(pixels, normalization):
    """(N, 3, H, W) uint8 through torchvision's own transforms, one image at a time."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalization.mean, normalization.std)])
    return torch.stack([transform(Image.fromarray(image)) for image in pixels.transpose(0, 2, 3, 1)]).numpy()


@pytest.fixture(scope="module")
def stats(tiny_raw, tmp_path_factory):
    return write_stats(tiny_raw, tmp_path_factory.mktemp("stats") / "stats.json")


@pytest.fixture
def run(tiny_raw, tmp_path):
    """Normalize the tiny dataset and return the shard set."""

    def normalize(name="shards", **changes):
        write_stats(tiny_raw, tmp_path / "stats.json")
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / name, make_params(**changes))
        return open_shards(tmp_path / name)

    return normalize


ALL_PIXELS = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (1, 3, 16, 16))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_pixel_value_becomes_what_torchvision_makes_of_it(scheme, stats):
    normalization = choose_normalization(make_params(scheme=scheme), stats, RGB)
    expected = torchvision_values(ALL_PIXELS, normalization)
    ours = normalize_pixels(ALL_PIXELS, normalization, np.empty(ALL_PIXELS.shape, np.float32))
    assert ours.tobytes() == expected.tobytes()
    assert normalization_table(normalization, "float32").tobytes() == expected.tobytes()


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(1e-3, 1, exclude_min=True)] * 3),
)
def test_any_mean_and_std_give_what_torchvision_gives(mean, std):
    normalization = Normalization(scheme="custom", mean=mean, std=std)
    ours = normalize_pixels(ALL_PIXELS, normalization, np.empty(ALL_PIXELS.shape, np.float32))
    assert ours.tobytes() == torchvision_values(ALL_PIXELS, normalization).tobytes()


def test_each_scheme_has_its_mean_and_std(stats):
    def of(scheme):
        normalization = choose_normalization(make_params(scheme=scheme), stats, RGB)
        return normalization.mean, normalization.std

    mean = tuple(stats.mean.values())
    assert of("dataset") == (mean, tuple(stats.std.values()))
    assert of("dataset_per_image") == (mean, tuple(stats.std_per_image.values()))
    assert of("imagenet") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert of("symmetric") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert of("unit") == ((0, 0, 0), (1, 1, 1))
    assert of("custom") == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_mean_that_does_not_fit_the_channels_is_refused(stats):
    with pytest.raises(InputError, match="custom.*2 means and 2 stds, the images have 3 channels"):
        choose_normalization(make_params(scheme="custom", mean=(0.1, 0.2), std=(0.4, 0.5)), stats, RGB)


@pytest.mark.parametrize(("std", "dtype"), [(1e-46, "float32"), (1e-39, "float32"), (1e-6, "float16")])
def test_a_std_that_makes_values_overflow_is_refused(std, dtype, run):
    with pytest.raises(InputError, match=f"{dtype} can't hold"):
        run(scheme="custom", mean=(0.5, 0.5, 0.5), std=(1, 1, std), dtype=dtype)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_shards_hold_every_sample_in_order_as_torchvision_normalizes_it(scheme, dtype, tiny, run):
    shards = run(scheme=scheme, dtype=dtype, samples_per_shard=30)
    assert shards.manifest.content_sha256 == tiny.content_sha256
    for split, (pixels, labels) in (("train", tiny.train), ("test", tiny.test)):
        expected = torchvision_values(pixels, shards.manifest.normalization)
        images = read_images(shards, split)
        assert images.dtype == dtype
        wanted = {"float32": expected, "float16": torch.from_numpy(expected).half().numpy(), "uint8": pixels}[dtype]
        assert images.tobytes() == wanted.tobytes()
        assert np.array_equal(shards.labels(split), labels)


@pytest.mark.parametrize("samples_per_shard", [1, 30, 99, 100, 10**9])
def test_the_shard_size_changes_the_files_and_not_the_samples(samples_per_shard, tiny, run):
    shards = run(samples_per_shard=samples_per_shard, dtype="uint8")
    shards.verify()
    for split, (pixels, labels) in (("train", tiny.train), ("test", tiny.test)):
        sizes = [shard.samples for shard in shards.shards(split)]
        assert all(size == samples_per_shard for size in sizes[:-1])
        assert 0 < sizes[-1] <= samples_per_shard
        assert np.array_equal(read_images(shards, split), pixels)
        assert np.array_equal(shards.labels(split), labels)


def test_the_same_params_give_the_same_bytes(run, tmp_path):
    for name in ("one", "two"):
        run(name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*"))
    assert len(files) == 2 + 2 * 2 + 3  # two folders, images and labels of each split, manifest and card
    for file in files:
        if (tmp_path / "one" / file).is_file():
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_former_shards_are_replaced_and_never_written_into(run, tmp_path):
    run(scheme="unit")
    in_cache = tmp_path / "cache.npy"
    shard = tmp_path / "shards/test/images-00000-of-00001.npy"
    in_cache.hardlink_to(shard)
    in_cache.chmod(0o444)
    before = in_cache.read_bytes()
    (tmp_path / "shards/left-over").touch()
    run(scheme="symmetric").verify()
    assert in_cache.read_bytes() == before
    assert shard.read_bytes() != before


@pytest.mark.parametrize("change", [{"dataset": "other"}, {"mean": {"gray": 0.5}}, {"std": {}}])
def test_statistics_that_are_not_those_of_the_data_are_refused(change, tiny_raw, tmp_path):
    stats = to_builtins(write_stats(tiny_raw, tmp_path / "stats.json"))
    (tmp_path / "stats.json").write_text(json.dumps(stats | change))
    with pytest.raises(InputError, match=r"stats.json: (not the statistics of|.*should have the channels of mean)"):
        normalize_shards(tiny_raw, tmp_path / "stats.json", tmp_path / "shards", make_params())


def test_raw_data_that_are_not_whole_leave_the_former_shards_as_they_were(tiny_raw, run, tmp_path):
    shards = run()
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    (raw / "test/labels-00000-of-00001.npy").unlink()
    with pytest.raises(CorruptDataError, match="labels-00000-of-00001.npy: missing"):
        normalize_shards(raw, tmp_path / "stats.json", tmp_path / "shards", make_params(scheme="unit"))
    shards.verify()
    assert open_shards(tmp_path / "shards").manifest == shards.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "shards", "stats.json"]


def test_a_raw_set_that_is_replaced_meanwhile_is_not_mixed_with_its_successor(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 3, 8, 8), np.uint8)
    for name, of_name in zip(("raw", "other"), images, strict=True):
        write_raw_set(tmp_path / name, of_name[:30], of_name[30:])
    write_stats(tmp_path / "raw", tmp_path / "stats.json")

    def verify_and_swap(self, but):
        verify(self, but)
        (tmp_path / "raw").rename(tmp_path / "former")
        (tmp_path / "other").rename(tmp_path / "raw")

    verify = ShardSet.verify
    monkeypatch.setattr(ShardSet, "verify", verify_and_swap)
    with pytest.raises(CorruptDataError, match="another set has taken its place meanwhile"):
        normalize_shards(
            tmp_path / "raw", tmp_path / "stats.json", tmp_path / "shards", make_params(samples_per_shard=7)
        )
    assert not (tmp_path / "shards").exists()
