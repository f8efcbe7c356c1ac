"""Stage `audit`: what the images are: figures, near-duplicates, oddities."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import to_builtins

from pipeline.audit.checksums import write_sums
from pipeline.audit.details import DETAILS_NAME
from pipeline.audit.exact_duplicates import find_exact_pairs
from pipeline.audit.figures import headline_figures, image_rows, make_details, summarize
from pipeline.audit.limits import check_limits
from pipeline.audit.lists import NEAR_DUPLICATES_NAME, list_pairs, lists_to_keep, load_ignored, pair_rows
from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.search_index import SearchIndex
from pipeline.audit.survey import survey_splits
from pipeline.runtime.files import render_csv, replace_dir, write_json, write_synced
from pipeline.runtime.tasks import Progress, map_tasks
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import repair_hint
from shardset.models import render_json

if TYPE_CHECKING:
    from pipeline.params import AuditParams


def audit_images(raw_dir: Path, audit_dir: Path, metrics_path: Path, params: "AuditParams", progress: Progress) -> str:
    """Replace `audit_dir` with what the images of data/raw are, and return a summary.

    Raises InputError for an unusable list of pairs to ignore, CorruptDataError if data/raw is damaged, and
    PipelineError, once everything is written, if more was found than the limits allow.
    """
    ignored = load_ignored(Path(params.ignore)) if params.ignore else set()
    with repair_hint(), replace_dir(audit_dir) as new_dir:
        raw = open_raw(raw_dir)
        images = {shard.images for split in raw.manifest.splits for shard in raw.shards(split)}
        raw.verify(exclude=images, map_files=map_tasks)  # the survey verifies these
        with TemporaryDirectory(dir=new_dir) as scratch_dir:
            index = SearchIndex(raw, Path(scratch_dir))
            surveys = survey_splits(raw, index.add, progress)
            digests = {split: survey.digests for split, survey in surveys.items()}
            raw.check_content(digests)
            found = find_near_duplicates(index, progress)
        exact = find_exact_pairs(digests)
        pairs, left_out = list_pairs(raw, [*found, *exact], digests, ignored)
        details = make_details(raw, surveys, exact, pairs, left_out)
        tables = {
            NEAR_DUPLICATES_NAME: pair_rows(pairs),
            "images.csv": image_rows(raw, surveys, pairs),
        } | lists_to_keep(raw, pairs)
        for name, rows in tables.items():
            write_synced(new_dir / name, render_csv(rows))
        write_synced(new_dir / DETAILS_NAME, render_json(to_builtins(details)))
        write_sums(new_dir)
        raw.check_unchanged()
    write_json(metrics_path, headline_figures(details, exact, pairs))
    check_limits(pairs, exact, params.limits)
    return summarize(details, pairs)
