import pytest
from msgspec.structs import replace

from pipeline.numerics.schemes import choose_normalization
from pipeline.numerics.statistics import compute_statistics
from shardset.errors import InputError
from shardset.manifest import Normalization
from shardset.shards import open_shards

RGB = ("red", "green", "blue")
CUSTOM = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture(scope="module")
def tiny_statistics(tiny_raw):
    return compute_statistics(open_shards(tiny_raw), "train")


def test_each_scheme_has_its_mean_and_std(tiny_statistics):
    mean, std, std_per_image = (
        tuple(values.values()) for values in (tiny_statistics.mean, tiny_statistics.std, tiny_statistics.std_per_image)
    )
    for scheme, expected in {
        "dataset": (mean, std),
        "dataset_per_image": (mean, std_per_image),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "unit": ((0, 0, 0), (1, 1, 1)),
        "custom": CUSTOM,
    }.items():
        normalization = choose_normalization(scheme, tiny_statistics, RGB, CUSTOM)
        assert normalization == Normalization(scheme=scheme, mean=expected[0], std=expected[1])


def test_mean_and_std_follow_the_order_of_channels(tiny_statistics):
    forward = choose_normalization("dataset", tiny_statistics, RGB)
    backward = choose_normalization("dataset", tiny_statistics, RGB[::-1])
    assert backward == replace(forward, mean=forward.mean[::-1], std=forward.std[::-1])


@pytest.mark.parametrize(
    ("scheme", "channels", "custom", "message"),
    [
        ("custom", RGB, ((0.1, 0.2), (0.4, 0.5)), "has 2 means and 2 stds, but the images have 3 channels: red, green"),
        ("custom", RGB, ((0.1, 0.2, 0.3), (0.4, 0.5)), "has 3 means and 2 stds"),
        ("custom", RGB, (None, None), "has 0 means and 0 stds"),
        ("imagenet", ("red",), (None, None), "has 3 means and 3 stds, but the images have 1 channels: red"),
    ],
)
def test_mean_that_does_not_fit_the_channels_is_refused(scheme, channels, custom, message, tiny_statistics):
    with pytest.raises(InputError, match=f"^scheme '{scheme}' {message}"):
        choose_normalization(scheme, tiny_statistics, channels, custom)


@pytest.mark.parametrize("scheme", ["symmetric", "unit"])
def test_constant_schemes_fit_any_number_of_channels(scheme, tiny_statistics):
    normalization = choose_normalization(scheme, tiny_statistics, ("red",))
    assert len(normalization.mean) == len(normalization.std) == 1
