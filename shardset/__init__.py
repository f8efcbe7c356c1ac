"""Read image datasets stored as hashed .npy shards: the format, its reader, and a torch dataset.

`open_shards` and `verify_shards` need only numpy and msgspec; `ShardDataset` needs torch, imported on first use.
"""

from importlib import import_module

TYPE_CHECKING = False  # importing typing would slow down every command
if TYPE_CHECKING:
    from shardset.dataset import ShardDataset
    from shardset.errors import CorruptDataError, DamagedFileError, InputError, ShardSetError
    from shardset.shards import open_shards, verify_shards
    from shardset.statistics import load_stats

__all__ = [
    "CorruptDataError",
    "DamagedFileError",
    "InputError",
    "ShardDataset",
    "ShardSetError",
    "load_stats",
    "open_shards",
    "verify_shards",
]

_MODULES = {
    "CorruptDataError": "shardset.errors",
    "DamagedFileError": "shardset.errors",
    "InputError": "shardset.errors",
    "ShardDataset": "shardset.dataset",
    "ShardSetError": "shardset.errors",
    "load_stats": "shardset.statistics",
    "open_shards": "shardset.shards",
    "verify_shards": "shardset.shards",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'shardset' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
