"""The errors of the program. Each message is meant for a person; the command line prints it without a traceback.

ShardSetError           of shardset.errors, the base of all
├── InputError          of shardset.errors: params, paths or files given by the user; exit code 2
│   └── UnreadableImageError    an image file can't be decoded; the message is the reason alone
│       └── NotAnImageError     a file that is no image
├── CorruptDataError    of shardset.errors: bytes on disk differ from what they should be; exit code 1
│   └── DamagedFileError    of shardset.errors: a file that can be restored
└── PipelineError       something else went wrong; exit code 1
    └── FetchError      an archive could not be fetched
"""

from shardset.errors import InputError, ShardSetError


class PipelineError(ShardSetError):
    """Something went wrong in a stage, such as a full disk, a busy lock or a lost worker."""


class FetchError(PipelineError):
    """An archive could not be fetched from a source."""


class UnreadableImageError(InputError):
    """An image file that can't be decoded. The message is the reason, without the name of the file."""


class NotAnImageError(UnreadableImageError):
    """A file that has none of the known image formats."""
