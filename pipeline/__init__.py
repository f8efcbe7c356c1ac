"""Image classification datasets as normalized, hashed .npy shards."""

from importlib import import_module

TYPE_CHECKING = False  # typing takes a while to import, in which Ctrl-C would find no one to handle it
if TYPE_CHECKING:
    from pipeline.reader import ShardDataset
    from pipeline.shards import open_shards
    from pipeline.stats import load_stats

__all__ = ["ShardDataset", "load_stats", "open_shards"]

# Imported when first asked for: importing the package alone loads neither torch nor numpy.
_MODULES = {
    "ShardDataset": "pipeline.reader",
    "load_stats": "pipeline.stats",
    "open_shards": "pipeline.shards",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
