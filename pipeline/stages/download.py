"""Stage `download`: a dataset from its source, as raw shards."""

from pathlib import Path

from pipeline.errors import FetchError
from pipeline.runtime.files import replace_dir
from pipeline.shards.writer import compute_content_hash, save_manifest, write_shards
from pipeline.sources.fetch import Progress
from pipeline.sources.registry import DATASETS, Dataset
from pipeline.sources.source import read_dataset
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest

SAMPLES_PER_SHARD = 10_000
CHANNELS = ("red", "green", "blue")

WAYS_OUT = """What you can do:
  another mirror   PIPELINE_SOURCE=https://host/{file_name} dvc repro
  a local file     PIPELINE_SOURCE=/path/to/{file_name} dvc repro, or a folder with the unpacked files
  no data at all   make demo, which generates a dataset"""


def download_dataset(name: str, raw_dir: Path, archives_dir: Path, source: str | None, progress: Progress) -> Manifest:
    """Replace `raw_dir` by a dataset as a shard set of raw pixels; `source` as in `read_dataset`.

    Raises InputError for an unusable source, FetchError, and CorruptDataError if the decoded data are not the
    dataset's.
    """
    dataset = DATASETS[name]
    try:
        images, labels, classes = read_dataset(dataset, archives_dir, source, progress)
    except FetchError as error:
        raise FetchError(
            f"{error}\n{WAYS_OUT.format(file_name=dataset.archive and dataset.archive.file_name)}"
        ) from None
    image_shape = images["train"].shape[1:]
    content_sha256 = compute_content_hash(images, labels)
    _check_content(name, dataset, content_sha256)
    with replace_dir(raw_dir) as new_dir:
        manifest = Manifest(
            format_version=2,
            dataset=name,
            classes=classes,
            dtype="uint8",
            layout="NCHW",
            image_shape=image_shape,
            channels=CHANNELS,
            content_sha256=content_sha256,
            normalization=None,
            splits=write_shards(
                new_dir,
                labels,
                lambda split, start, stop: [images[split][start:stop]],
                dtype="uint8",
                image_shape=image_shape,
                samples_per_shard=SAMPLES_PER_SHARD,
            ),
            files=(),
        )
        save_manifest(manifest, new_dir)
    return manifest


def _check_content(name: str, dataset: Dataset, content_sha256: str) -> None:
    if content_sha256 != dataset.content_sha256:
        raise CorruptDataError(
            f"{name}: expected the decoded images and labels to have content_sha256 {dataset.content_sha256}, "
            f"got {content_sha256}: please report this, with your version of numpy"
        )
