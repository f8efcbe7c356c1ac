"""Stage `report`: what the data is and what normalizing did, read back from the shards on disk."""

from pathlib import Path

from pipeline.audit.exact_duplicates import count_exact_duplicates
from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.survey import survey_splits
from pipeline.report.page import collect_facts, render_page, render_text
from pipeline.report.proof import (
    check_labels,
    check_origin,
    check_statistics,
    check_unit_variance,
    check_values,
    value_table,
)
from pipeline.report.tables import count_by_distance, make_metrics, make_tables, render_csv
from pipeline.runtime.files import write_json, write_text
from pipeline.runtime.tasks import map_tasks
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import corrupt_data_hint, repair_hint
from shardset.shards import open_shards

REMAKE_HINT = "To rebuild the shards from data/raw, run `dvc repro --force --single-item stats normalize`."


def write_report(raw_dir: Path, shards_dir: Path, report_dir: Path, decimals: int) -> None:
    """Verify both shard sets, survey them, look for duplicates, and write the page, the text and the tables.

    Raises CorruptDataError if a byte differs from the manifests, a value from the formula, or the mean and std from
    those of the train split.
    """
    with repair_hint():
        raw, shards = open_raw(raw_dir), open_shards(shards_dir)
    with corrupt_data_hint(REMAKE_HINT):
        check_origin(raw, shards)
    with repair_hint():
        shards.verify(map_files=map_tasks)
        raw_images = {shard.images for split in raw.manifest.splits for shard in raw.shards(split)}
        raw.verify(exclude=raw_images, map_files=map_tasks)  # the survey verifies these
        table = value_table(shards)
        surveys = survey_splits(raw, table)
        digests = {split: survey.digests for split, survey in surveys.items()}
        raw.check_content(digests)
    with corrupt_data_hint(REMAKE_HINT):
        check_labels(raw, shards)
        check_values(raw, shards)
        check_statistics(shards, surveys["train"].figures)
        check_unit_variance(shards, surveys["train"].figures)
    exact, near = count_exact_duplicates(digests), find_near_duplicates(raw)
    bands = count_by_distance(raw, near)
    facts = collect_facts(shards.manifest, surveys, exact, bands)
    page = render_page(raw, table, surveys, near, facts, decimals)
    text = render_text(surveys, facts, decimals)
    tables = make_tables(shards.manifest, table, surveys, near)
    for shard_set in (raw, shards):
        shard_set.check_unchanged()
    write_text(report_dir / "report.html", page)
    write_text(report_dir / "report.md", text)
    write_json(report_dir / "metrics.json", make_metrics(surveys, exact, bands))
    for name, rows in tables.items():
        write_text(report_dir / f"{name}.csv", render_csv(rows))
