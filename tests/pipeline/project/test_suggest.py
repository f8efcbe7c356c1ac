import pytest

from pipeline.project.suggest import suggest_params
from pipeline.shards.raw import samples_per_shard
from pipeline.sources.images.decode import Header


def headers(*sizes, mode="RGB"):
    return [Header("JPEG", mode, *size) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "size", "resize"),
    [
        ([(28, 28)] * 3, 28, None),
        ([(4096, 4096)], 4096, None),
        ([(4097, 4097)], 224, 256),  # more than `size` may be
        ([(28, 28), (28, 29)], 32, 36),  # not all are squares
        ([(300, 300), (299, 299)], 224, 256),  # squares, but of two sizes
        ([(400, 533)], 224, 256),  # 384 would be possible
        ([(224, 1000)], 224, 256),
        ([(223, 1000)], 128, 146),
        ([(1000, 100)], 96, 109),
        ([(64, 65)], 64, 73),
        ([(9, 500)], 32, 36),
        ([(40, 50), (100, 120), (900, 900)], 96, 109),  # the median, not the mean nor the smallest
        ([(40, 50), (900, 900)], 32, 36),  # the lower one of two
    ],
)
def test_size_follows_the_median_short_side(sizes, size, resize):
    suggestion = suggest_params(headers(*sizes))
    assert (suggestion.size, suggestion.resize) == (size, resize)


@pytest.mark.parametrize(
    ("sizes", "size", "resize"), [([(400, 533)], 64, 73), ([(64, 64)], 64, None), ([(28, 28)], 64, 73)]
)
def test_given_size_comes_with_its_resize(sizes, size, resize):
    suggestion = suggest_params(headers(*sizes), size)
    assert (suggestion.size, suggestion.resize) == (size, resize)
    assert suggestion.samples_per_shard == samples_per_shard((3, size, size))


@pytest.mark.parametrize(
    ("modes", "num_channels"), [(["L", "L"], 1), (["L", "1"], 1), (["I;16", "LA"], 1), (["L", "RGB"], 3), (["P"], 3)]
)
def test_images_are_grey_if_all_are(modes, num_channels):
    found = [Header("PNG", mode, 50, 60) for mode in modes]
    assert suggest_params(found).image_shape == (num_channels, 32, 32)


@pytest.mark.parametrize(
    ("side", "count", "size", "dtype"),
    [
        (32, 1, 10_000, "float32"),
        (224, 1, 1_700, "float32"),
        (4096, 1, 5, "float32"),
        (224, 3_321, 1_700, "float32"),  # 1,999,613,952 bytes
        (224, 3_322, 1_700, "uint8"),  # 2,000,216,064 bytes
        (224, 1_281_167, 1_700, "uint8"),
    ],
)
def test_shards_are_those_of_the_raw_set_and_dtype_follows_the_bytes(side, count, size, dtype):
    suggestion = suggest_params(headers((side, side)) * count)
    assert (suggestion.samples_per_shard, suggestion.dtype) == (size, dtype)
