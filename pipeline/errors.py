"""What can go wrong, as exceptions whose message is a sentence for the person who reads it.

PipelineError           exit code 1: something went wrong
├── InputError          exit code 2: what the user gave can't be used
├── FetchError          an archive could not be fetched
└── CorruptDataError    bytes on disk are not what they should be
"""


class PipelineError(Exception):
    """Base of every error that the library raises on purpose."""

    exit_code = 1


class InputError(PipelineError):
    """Params, paths or files given by the user that can't be used."""

    exit_code = 2


class FetchError(PipelineError):
    """An archive could not be fetched from a source."""


class CorruptDataError(PipelineError):
    """Bytes on disk that are not what their hash, manifest or format says."""
