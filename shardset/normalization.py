"""The normalization formula, as torchvision's `ToTensor()` and `Normalize()` compute it, bit for bit."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from shardset.errors import InputError
from shardset.manifest import Dtype, Manifest, Normalization

Floats = NDArray[np.float32]


def normalization_of(manifest: Manifest) -> Normalization:
    """Return a set's normalization; for raw pixels, the one that scales them to [0, 1]."""
    num_channels = len(manifest.channels)
    return manifest.normalization or Normalization(scheme="unit", mean=(0.0,) * num_channels, std=(1.0,) * num_channels)


def normalize_pixels(pixels: NDArray[np.uint8], normalization: Normalization, out: Floats) -> Floats:
    """Compute `(v / 255 - mean[c]) / std[c]` for pixels (..., C, H, W) uint8 into `out`, float32 of the same shape.

    Every operation is done in float32 and both divisions are true divisions, as in torchvision. Multiplying by
    reciprocals would change the last bit of some values.
    """
    mean, std = _as_arrays(normalization)
    np.divide(pixels, np.float32(255), out=out)
    np.subtract(out, mean, out=out)
    return np.divide(out, std, out=out)


@cache  # for one image, making the arrays would take longer than computing with them
def _as_arrays(normalization: Normalization) -> tuple[Floats, Floats]:
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (normalization.mean, normalization.std))
    return mean, std


def normalization_table(normalization: Normalization, dtype: Dtype) -> Floats:
    """Compute the value of each of the 256 pixel values in each channel as a reader sees it, (C, 256) float32.

    With dtype float16 the values are rounded to float16. Raises InputError if a value is not finite.
    """
    num_channels = len(normalization.mean)
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8), (num_channels, 256)).reshape(1, num_channels, 1, 256)
    with np.errstate(all="ignore"):
        table = normalize_pixels(pixels, normalization, np.empty(pixels.shape, np.float32)).reshape(num_channels, 256)
        if dtype == "float16":
            table = table.astype(np.float16).astype(np.float32)
    if not np.isfinite(table).all():
        raise InputError(
            f"scheme '{normalization.scheme}' gives values that {dtype} can't hold: std is {normalization.std}"
        )
    return table
