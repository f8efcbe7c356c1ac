"""Stage `audit`: what the images are: figures, near-duplicates, oddities."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import to_builtins

from pipeline.audit.checksums import write_sums
from pipeline.audit.details import DETAILS_NAME, Details
from pipeline.audit.exact_duplicates import find_exact_pairs
from pipeline.audit.figures import headline_figures, image_rows, make_details, summarize
from pipeline.audit.limits import check_limits
from pipeline.audit.lists import NEAR_DUPLICATES_NAME, PairTable, list_pairs, lists_to_keep, load_ignored, pair_rows
from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.search_index import open_index
from pipeline.audit.shard_survey import read_digests, survey_shards
from pipeline.audit.survey import Survey, read_survey
from pipeline.runtime.cluster import open_workers
from pipeline.runtime.files import check_free_space, write_csv, write_json, write_synced
from pipeline.runtime.resume import SET_NAME, Step, open_step, resume_dir
from pipeline.runtime.tasks import Progress, Tally
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import repair_hint
from shardset.content import Digests
from shardset.manifest import Split, render_manifest
from shardset.models import render_json
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore

if TYPE_CHECKING:
    from pipeline.params import AuditParams

SPACE_HINT = "Free space, or make data/audit a link to a folder on another disk."


def audit_images(
    raw_dir: Path,
    audit_dir: Path,
    metrics_path: Path,
    params: "AuditParams",
    progress: Progress = ignore,
    scheduler: str | None = None,
    *,
    fresh: bool = False,
) -> str:
    """Replace `audit_dir` with what the images of data/raw are, and return a summary.

    `scheduler` as in `open_workers`, `fresh` as in `resume_dir`. Raises InputError for an unusable list of pairs to
    ignore, CorruptDataError if data/raw is damaged, and PipelineError if the disk has too little free space or, once
    everything is written, if more was found than the limits allow.
    """
    ignored = load_ignored(Path(params.ignore)) if params.ignore else set()
    with repair_hint(), resume_dir(audit_dir, fresh=fresh) as work_dir:
        raw = open_raw(raw_dir)
        manifest = render_manifest(raw.manifest)
        survey, search, new_set = (open_step(work_dir, name, manifest) for name in ("survey", "search", SET_NAME))
        index = open_index(raw, survey.dir)
        check_free_space(audit_dir, index.num_bytes - survey.num_bytes, SPACE_HINT)
        measured, compared = (Tally(progress, action, index.total) for action in ("Measuring", "Comparing"))
        with open_workers(scheduler, work_dir) as map_tasks:
            digests = _survey(raw, survey, map_tasks, measured)
            found = find_near_duplicates(index, search, map_tasks, compared.add)
        exact = find_exact_pairs(digests)
        pairs, left_out = list_pairs(raw, np.concatenate([found, exact]), digests, ignored)
        del digests  # they take as much memory as the figures of all images
        surveys = {split: read_survey(raw, survey, split) for split in raw.manifest.splits}
        details = make_details(raw, surveys, exact, pairs, left_out)
        _write_files(new_set.dir, raw, surveys, pairs, details)
        raw.check_unchanged()
    write_json(metrics_path, headline_figures(details, exact, pairs))
    check_limits(pairs, exact, params.limits)
    return summarize(details, pairs)


def _survey(raw: ShardSet, step: Step, map_tasks: MapTasks, tally: Tally) -> dict[Split, Digests]:
    """Survey all shards, verify everything else of data/raw, and return the digests of each split, (N, 32)."""
    images = {shard.images for split in raw.manifest.splits for shard in raw.shards(split)}
    raw.verify(exclude=images, map_files=map_tasks)  # the survey verifies these
    survey_shards(raw, step, map_tasks, tally.add)
    digests = {split: read_digests(raw, step, split) for split in raw.manifest.splits}
    raw.check_content(digests)
    return digests


def _write_files(
    audit_dir: Path, raw: ShardSet, surveys: Mapping[Split, Survey], pairs: PairTable, details: Details
) -> None:
    tables = {NEAR_DUPLICATES_NAME: pair_rows(pairs), "images.csv": image_rows(raw, surveys, pairs)}
    for name, rows in (tables | lists_to_keep(raw, pairs)).items():
        write_csv(audit_dir / name, rows)
    write_synced(audit_dir / DETAILS_NAME, render_json(to_builtins(details)))
    write_sums(audit_dir)
