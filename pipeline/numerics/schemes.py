"""The schemes: which mean and std to normalize with. A new one is a name in `Scheme` and a case here."""

from shardset.errors import InputError
from shardset.manifest import Normalization, Scheme
from shardset.statistics import Statistics

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def choose_normalization(
    scheme: Scheme,
    stats: Statistics,
    channels: tuple[str, ...],
    custom: tuple[tuple[float, ...] | None, tuple[float, ...] | None] = (None, None),
) -> Normalization:
    """Choose the mean and std of a scheme, one per channel; `custom` holds those of scheme "custom".

    Raises InputError if they don't fit the channels.
    """
    mean = tuple(stats.mean[name] for name in channels)
    std = tuple(stats.std[name] for name in channels)
    match scheme:
        case "dataset":
            pass
        case "dataset_per_image":
            std = tuple(stats.std_per_image[name] for name in channels)
        case "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        case "symmetric":
            mean = std = (0.5,) * len(channels)
        case "unit":
            mean, std = (0.0,) * len(channels), (1.0,) * len(channels)
        case "custom":
            mean, std = (values or () for values in custom)
    if not len(mean) == len(std) == len(channels):
        raise InputError(
            f"scheme '{scheme}' has {len(mean)} means and {len(std)} stds, but the images have "
            f"{len(channels)} channels: {', '.join(channels)}"
        )
    return Normalization(scheme=scheme, mean=mean, std=std)
