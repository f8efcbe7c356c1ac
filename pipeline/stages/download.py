"""Stage `download`: a dataset from its source, as raw shards."""

import logging
import shutil
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.runtime.cluster import open_workers
from pipeline.runtime.files import check_free_space
from pipeline.runtime.resume import SET_NAME, Step, resume_dir
from pipeline.runtime.tasks import Progress, Tally
from pipeline.shards.raw import DecodedSet, check_content, open_decoded, use_as_set, write_samples
from pipeline.shards.selection import check_fractions, check_selection, select_samples, selects_all, write_selection
from pipeline.shards.writer import save_manifest
from pipeline.sources.images.facts import StoredFacts
from pipeline.sources.images.tables import check_readable, describe_changes, find_unreadable, write_tables
from pipeline.sources.registry import DATASETS
from pipeline.sources.source import open_source
from pipeline.sources.stored import Source, StoredSamples
from pipeline.stages.remedies import source_hint
from shardset.manifest import Manifest
from shardset.threads import MapTasks, ignore

if TYPE_CHECKING:
    from pipeline.params import ImagesParams

LOGGER = logging.getLogger(__name__)

SIZE_HINT = (
    "Set images.size in params.yaml to a smaller value, or free space, or make data/raw a link to a folder on another "
    "disk."
)


def download_dataset(  # noqa: PLR0913 (what every stage takes, and where to fetch from)
    name: str,
    images: "ImagesParams",
    raw_dir: Path,
    archives_dir: Path,
    source: str | None,
    progress: Progress = ignore,
    scheduler: str | None = None,
    *,
    fresh: bool = False,
) -> Manifest:
    """Replace `raw_dir` with a dataset as a shard set of raw pixels; `name` and `source` as in `open_source`.

    `scheduler` as in `open_workers`, `fresh` as in `resume_dir`. Raises InputError for an unusable source, which lists
    all images that can't be read, FetchError, CorruptDataError if the decoded data are not the dataset's, and
    PipelineError if the disk has too little free space.
    """
    dataset = DATASETS.get(name)
    if name == "images":
        source = source or images.source
    with source_hint(dataset.archive.file_name if dataset and dataset.archive else ""):
        opened = open_source(name, source, archives_dir, images.preparation, progress)
    check_fractions(opened.splits, images.fractions)
    with resume_dir(raw_dir, fresh=fresh) as work_dir, open_workers(scheduler, work_dir) as map_tasks:
        samples = _store(opened, work_dir)
        del opened  # to free memory
        step = open_decoded(work_dir, name, samples)
        num_samples = sum(samples.num_samples.values())
        num_copies = 2 if images.unreadable == "skip" or any(images.fractions.values()) else 1
        num_bytes = num_copies * num_samples * prod(samples.image_shape)
        num_there = sum(Step(folder).num_bytes for folder in (step.dir, *work_dir.glob(f"{SET_NAME}-*")))
        check_free_space(raw_dir, num_bytes - num_there, SIZE_HINT)
        tally = Tally(progress, "Decoding", num_samples)
        decoded = write_samples(step, name, samples, map_tasks, tally, on_cluster=scheduler is not None)
        check_content(decoded.manifest, dataset.content_sha256 if dataset else None)
        return _write_set(decoded, samples, images, map_tasks, progress)


def _store(source: Source, work_dir: Path) -> StoredSamples:
    folder = work_dir / "source"
    if folder.exists():  # of an earlier run that was killed
        shutil.rmtree(folder)
    return source.store(folder)


def _write_set(
    decoded: DecodedSet, samples: StoredSamples, images: "ImagesParams", map_tasks: MapTasks, progress: Progress
) -> Manifest:
    """Write the selected samples of a decoded set into the folder that becomes data/raw."""
    facts = {split: StoredFacts(partial(decoded.facts, split)) for split in samples.num_samples}
    unreadable = find_unreadable(facts)
    if images.unreadable == "fail":
        check_readable(samples.names, facts)
    raw, digests = decoded.shards, decoded.digests()
    selection = select_samples(digests, unreadable, images.fractions)
    check_selection(raw, selection)
    if is_changed := not selects_all(raw, selection):
        raw = write_selection(raw, digests, selection, map_tasks, progress)
    labels = {split: decoded.shards.labels(split) for split in samples.num_samples}
    files = write_tables(raw.dir, samples.names, labels, facts, selection)
    manifest = replace(raw.manifest, skipped=sum(map(len, unreadable.values())), files=tuple(files))
    save_manifest(manifest, raw.dir)
    for line in describe_changes(facts, is_turned=images.orientation == "exif"):
        LOGGER.info(line)
    if not is_changed:
        use_as_set(decoded.step)
    return manifest
