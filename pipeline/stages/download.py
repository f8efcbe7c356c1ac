"""Stage `download`: a dataset from its source, as raw shards."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.runtime.files import replace_dir
from pipeline.runtime.tasks import Progress
from pipeline.shards.raw import check_content, write_samples
from pipeline.shards.selection import apply_selection, check_fractions, check_selection, select_samples
from pipeline.shards.writer import save_manifest, write_set_file
from pipeline.sources.images.tables import check_readable, describe_changes, find_unreadable, render_tables
from pipeline.sources.registry import DATASETS
from pipeline.sources.source import open_samples
from pipeline.stages.remedies import source_hint
from shardset.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.params import ImagesParams

LOGGER = logging.getLogger(__name__)


def download_dataset(
    name: str, images: "ImagesParams", raw_dir: Path, archives_dir: Path, source: str | None, progress: Progress
) -> Manifest:
    """Replace `raw_dir` with a dataset as a shard set of raw pixels; `name` and `source` as in `open_samples`.

    Raises InputError for an unusable source, which lists all images that can't be read, FetchError, and
    CorruptDataError if the decoded data are not the dataset's.
    """
    dataset = DATASETS.get(name)
    if name == "images":
        source = source or images.source
    with source_hint(dataset.archive.file_name if dataset and dataset.archive else ""):
        samples = open_samples(name, source, archives_dir, images.preparation, progress)
    check_fractions(samples.labels, images.fractions)
    with replace_dir(raw_dir) as new_dir:
        raw, digests, facts = write_samples(new_dir, name, samples, partial(progress, "Decoding"))
        check_content(raw.manifest, dataset.content_sha256 if dataset else None)
        unreadable = find_unreadable(facts)
        if images.unreadable == "fail":
            check_readable(samples.names, facts)
        selection = select_samples(digests, unreadable, images.fractions)
        check_selection(raw, selection)
        raw = apply_selection(raw, digests, selection)
        tables = render_tables(samples.names, samples.labels, facts, selection)
        files = [write_set_file(new_dir, *table) for table in tables.items()]
        manifest = replace(raw.manifest, skipped=sum(map(len, unreadable.values())), files=tuple(files))
        save_manifest(manifest, new_dir)
    for line in describe_changes(facts, is_turned=images.orientation == "exif"):
        LOGGER.info(line)
    return manifest
