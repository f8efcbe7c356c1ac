"""Stage `download`: a dataset from its source, as raw shards."""

from pathlib import Path

from pipeline.errors import FetchError
from pipeline.shards.writer import compute_content_hash, write_raw_set
from pipeline.sources.fetch import Progress
from pipeline.sources.registry import DATASETS
from pipeline.sources.source import read_dataset
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest

CHANNELS = ("red", "green", "blue")

# No command that starts the pipeline: after `make repro`, DVC may not be on the PATH.
WAYS_OUT = """What you can do before you run the same command again:
  another mirror   export PIPELINE_SOURCE=https://host/{file_name}
  a local file     export PIPELINE_SOURCE=/path/to/{file_name}, or a folder with the unpacked files
Without a download, `make demo` runs everything on a generated dataset."""


def download_dataset(name: str, raw_dir: Path, archives_dir: Path, source: str | None, progress: Progress) -> Manifest:
    """Replace `raw_dir` with a dataset as a shard set of raw pixels; `source` as in `read_dataset`.

    Raises InputError for an unusable source, FetchError, and CorruptDataError if the decoded data are not the
    dataset's.
    """
    dataset = DATASETS[name]
    try:
        images, labels, classes = read_dataset(dataset, archives_dir, source, progress)
    except FetchError as error:
        file_name = dataset.archive.file_name if dataset.archive else name
        raise FetchError(f"{error}\n{WAYS_OUT.format(file_name=file_name)}") from None
    if (content_sha256 := compute_content_hash(images, labels)) != dataset.content_sha256:
        raise CorruptDataError(
            f"{name}: expected the decoded images and labels to have content_sha256 {dataset.content_sha256}, "
            f"got {content_sha256}: please report this, with your version of numpy"
        )
    return write_raw_set(raw_dir, name, classes, CHANNELS, images, labels, content_sha256)
