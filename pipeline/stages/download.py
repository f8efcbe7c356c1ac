"""Stage `download`: a dataset from its source, as raw shards."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.errors import FetchError
from pipeline.runtime.files import replace_dir
from pipeline.runtime.tasks import Progress
from pipeline.shards.raw import check_content, write_samples
from pipeline.shards.selection import apply_selection, check_fractions, select_samples
from pipeline.shards.writer import save_manifest, write_set_file
from pipeline.sources.images.tables import check_readable, count_conversions, find_unreadable, render_tables
from pipeline.sources.registry import DATASETS
from pipeline.sources.source import open_samples
from shardset.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.params import Params

# No command that starts the pipeline: after `make repro`, DVC may not be on the PATH.
WAYS_OUT = """What you can do before you run the same command again:
  another mirror   export PIPELINE_SOURCE=https://host/{file_name}
  a local file     export PIPELINE_SOURCE=/path/to/{file_name}, or a folder with the unpacked files
Without a download, `make demo` runs everything on a generated dataset."""

LOGGER = logging.getLogger(__name__)


def download_dataset(
    params: "Params", raw_dir: Path, archives_dir: Path, source: str | None, progress: Progress
) -> Manifest:
    """Replace `raw_dir` with a dataset as a shard set of raw pixels; `source` as in `open_samples`.

    Raises InputError for an unusable source, which lists all images that can't be read, FetchError, and
    CorruptDataError if the decoded data are not the dataset's.
    """
    try:
        samples = open_samples(params.dataset, params.images, archives_dir, source, progress)
    except FetchError as error:
        archive = DATASETS[params.dataset].archive
        raise FetchError(f"{error}\n{WAYS_OUT.format(file_name=archive and archive.file_name)}") from None
    check_fractions(samples.labels, params.images.fractions)
    with replace_dir(raw_dir) as new_dir:
        raw, digests, facts = write_samples(new_dir, params.dataset, samples, partial(progress, "Decoding"))
        if params.dataset in DATASETS:
            check_content(raw.manifest, DATASETS[params.dataset].content_sha256)
        unreadable = find_unreadable(facts)
        if params.images.unreadable == "fail":
            check_readable(samples.names, facts)
        selection = select_samples(raw, digests, unreadable, params.images.fractions)
        raw = apply_selection(raw, digests, selection)
        tables = render_tables(samples.names, samples.labels, facts, selection)
        files = [write_set_file(new_dir, *table) for table in tables.items()]
        manifest = replace(raw.manifest, skipped=sum(map(len, unreadable.values())), files=tuple(files))
        save_manifest(manifest, new_dir)
    if converted := count_conversions(facts, is_turned=params.images.orientation == "exif"):
        LOGGER.info("Converted: %s", converted)
    return manifest
