"""The errors that reading a shard set raises. Each message is meant for a person.

ShardSetError
├── InputError          an argument, or a file given by the caller, can't be used
└── CorruptDataError    the set is not what it should be
    └── DamagedFileError    a file is missing, or its bytes differ from the manifest

Environment faults (no permission, too many open files, a failing disk) are raised as OSError.
"""


class ShardSetError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ShardSetError):
    """An argument, or a file given by the caller, that can't be used."""


class CorruptDataError(ShardSetError):
    """A set that is not what its manifest, its content hash or the format says."""


class DamagedFileError(CorruptDataError):
    """A file of the set that is missing, or whose bytes differ from the manifest."""
