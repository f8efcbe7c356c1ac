"""The errors that reading a shard set raises. Each message is meant for a person.

ShardSetError
├── InputError          an argument, or a file given by the caller, can't be used
└── CorruptDataError    a file of the set is missing, or its bytes differ from the manifest

What the environment does (no permission, too many open files, a failing disk) stays an OSError.
"""


class ShardSetError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ShardSetError):
    """An argument, or a file given by the caller, that can't be used."""


class CorruptDataError(ShardSetError):
    """A file of the set that is missing, or whose bytes differ from what its hash, manifest or format says."""
