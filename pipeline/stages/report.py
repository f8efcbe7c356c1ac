"""Stage `report`: proof that the shards follow from the raw pixels, and a page on what the data is."""

from pathlib import Path

from pipeline.audit.checksums import check_sums
from pipeline.audit.details import load_details
from pipeline.audit.lists import load_pairs
from pipeline.report.comparison import compare_shards, plan_comparisons, verify_other_files
from pipeline.report.page import render_page, render_text
from pipeline.report.proof import (
    check_audit,
    check_origin,
    check_statistics,
    check_unit_variance,
    compute_figures,
    value_table,
)
from pipeline.report.tables import make_metrics, make_tables
from pipeline.runtime.cluster import open_workers
from pipeline.runtime.files import render_csv, write_json, write_text
from pipeline.runtime.tasks import Progress, Tally
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import corrupt_data_hint, repair_hint
from shardset.shards import ShardSet, open_shards
from shardset.threads import ignore

REMAKE_HINT = "To rebuild the shards from data/raw, run `dvc repro --force --single-item stats normalize`."
AUDIT_HINT = "To audit data/raw again, run `dvc repro --force --single-item audit`."


def write_report(
    raw_dir: Path,
    audit_dir: Path,
    shards_dir: Path,
    report_dir: Path,
    decimals: int,
    progress: Progress = ignore,
    scheduler: str | None = None,
) -> None:
    """Verify both shard sets, and write the page, the text and the tables from them and from the audit.

    `scheduler` as in `open_workers`. Raises CorruptDataError if a byte differs from the manifests, a value from the
    formula, the mean and std from those of the train split, or if the audit is of other data.
    """
    with repair_hint():
        raw, shards = open_raw(raw_dir), open_shards(shards_dir)
    with corrupt_data_hint(AUDIT_HINT):
        details, pairs = load_details(audit_dir), load_pairs(audit_dir, raw)
        check_audit(raw, details)
        check_sums(audit_dir)
    _check_shards(raw, shards, progress, scheduler)
    table = value_table(shards)
    figures = compute_figures(details.splits, table)
    with corrupt_data_hint(REMAKE_HINT):
        check_statistics(shards, details.splits["train"])
        check_unit_variance(shards, figures["train"])
    page = render_page(raw, shards, details, pairs, figures, decimals)
    text = render_text(shards.manifest, details, pairs, figures, decimals)
    tables = make_tables(table, details.splits)
    for shard_set in (raw, shards):
        shard_set.check_unchanged()
    write_text(report_dir / "report.html", page)
    write_text(report_dir / "report.md", text)
    write_json(report_dir / "metrics.json", make_metrics(shards.manifest, figures))
    for name, rows in tables.items():
        write_text(report_dir / f"{name}.csv", render_csv(rows))


def _check_shards(raw: ShardSet, shards: ShardSet, progress: Progress, scheduler: str | None) -> None:
    with corrupt_data_hint(REMAKE_HINT):
        check_origin(raw, shards)
    comparisons = plan_comparisons(raw, shards)
    tally = Tally(progress, "Checking", shards.manifest.num_samples)
    with open_workers(scheduler, shards.dir.parent) as map_tasks, repair_hint():
        verify_other_files(raw, shards, comparisons, map_tasks)
        with corrupt_data_hint(REMAKE_HINT):
            compare_shards(raw, shards, comparisons, map_tasks, tally.add)
