import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shardset.errors import InputError
from shardset.manifest import Normalization, SplitShards
from shardset.normalization import normalization_of, normalization_table, normalize_pixels
from tests.helpers.shard_sets import make_manifest

ALL_PIXELS = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (1, 3, 16, 16))
PUBLISHED = [
    ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),  # CIFAR-10
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # of many tutorials
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
]
NO_SHARDS = SplitShards(samples=0, shards=())  # reading a file would refuse it


def make_normalization(mean, std):
    return Normalization(scheme="custom", mean=tuple(mean), std=tuple(std))


def normalize_with_torchvision(pixels, normalization):
    """Normalize (N, C, H, W) uint8 with torchvision's own transforms, one image at a time."""
    from torchvision import transforms  # imported here, so that a run without the slow tests starts fast

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalization.mean, normalization.std)])
    return torch.stack([transform(Image.fromarray(image)) for image in pixels.transpose(0, 2, 3, 1)]).numpy()


def normalize(pixels, normalization):
    return normalize_pixels(pixels, normalization, np.empty(pixels.shape, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "std"), PUBLISHED)
def test_every_pixel_value_is_normalized_as_by_torchvision(mean, std):
    normalization = make_normalization(mean, std)
    expected = normalize_with_torchvision(ALL_PIXELS, normalization)
    assert normalize(ALL_PIXELS, normalization).tobytes() == expected.tobytes()
    assert normalization_table(normalization, "float32").tobytes() == expected.tobytes()
    half = torch.from_numpy(expected).half().float().numpy()
    assert normalization_table(normalization, "float16").tobytes() == half.tobytes()


@pytest.mark.slow
@given(st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(1e-3, 1, exclude_min=True)] * 3))
def test_any_mean_and_std_give_what_torchvision_gives(mean, std):
    normalization = make_normalization(mean, std)
    expected = normalize_with_torchvision(ALL_PIXELS, normalization)
    assert normalize(ALL_PIXELS, normalization).tobytes() == expected.tobytes()


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(0, 2**32), st.integers(1, 4))
def test_channels_and_images_are_normalized_independently(num_images, seed, num_channels):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (num_images, num_channels, 3, 5), np.uint8)
    normalization = make_normalization(rng.uniform(0, 1, num_channels).tolist(), rng.uniform(0.1, 1, num_channels))
    table = normalization_table(normalization, "float32")
    assert table.shape == (num_channels, 256)
    normalized = normalize(pixels, normalization)
    for channel in range(num_channels):
        assert normalized[:, channel].tobytes() == table[channel][pixels[:, channel]].tobytes()


@pytest.mark.parametrize(("std", "dtype"), [(1e-46, "float32"), (1e-39, "float32"), (1e-6, "float16")])
def test_std_that_makes_values_overflow_is_refused(std, dtype):
    with pytest.raises(InputError, match=rf"scheme 'custom' gives values that {dtype} can't hold: std is \(1.*{std}"):
        normalization_table(make_normalization((0.5, 0.5), (1.0, std)), dtype)


def test_raw_pixels_are_scaled_to_unit_range():
    raw = make_manifest({"train": NO_SHARDS}, image_shape=(2, 4, 4), channels=("a", "b"))
    assert normalization_of(raw) == Normalization(scheme="unit", mean=(0.0, 0.0), std=(1.0, 1.0))


def test_normalization_of_a_set_is_that_of_its_manifest():
    normalization = make_normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert normalization_of(make_manifest({"train": NO_SHARDS}, normalization=normalization)) is normalization
