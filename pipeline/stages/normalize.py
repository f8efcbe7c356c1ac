"""Stage `normalize`: pixels to normalized shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.card.card import render_card
from pipeline.numerics.schemes import choose_normalization
from pipeline.runtime.cluster import open_workers
from pipeline.runtime.files import check_free_space
from pipeline.runtime.resume import SET_NAME, open_step, resume_dir
from pipeline.runtime.tasks import Progress, Tally
from pipeline.shards.normalized import files_verified_on_read, num_new_bytes, write_normalized_shards
from pipeline.shards.writer import copy_set_file, save_manifest, write_set_file
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import DTYPE_HINT, input_hint, repair_hint
from shardset.errors import InputError
from shardset.manifest import Manifest, Normalization, render_manifest
from shardset.normalization import normalization_table
from shardset.shards import ShardSet
from shardset.statistics import read_statistics
from shardset.threads import ignore

if TYPE_CHECKING:
    from pipeline.params import NormalizeParams


def normalize_shards(
    raw_dir: Path,
    stats_path: Path,
    shards_dir: Path,
    params: "NormalizeParams",
    progress: Progress = ignore,
    scheduler: str | None = None,
    *,
    fresh: bool = False,
) -> Manifest:
    """Replace `shards_dir` with a normalized shard set; `scheduler` as in `open_workers`, `fresh` as in `resume_dir`.

    Raises InputError if the params or the statistics don't fit the data, CorruptDataError if data/raw is damaged, and
    PipelineError if the disk has too little free space.
    """
    with repair_hint():
        raw = open_raw(raw_dir)
        normalization = _choose_normalization(raw, stats_path, params)
        manifest = replace(raw.manifest, dtype=params.dtype, normalization=normalization, files=())
        size = params.samples_per_shard
        with resume_dir(shards_dir, fresh=fresh) as work_dir, open_workers(scheduler, work_dir) as map_tasks:
            step = open_step(work_dir, SET_NAME, render_manifest(raw.manifest), render_manifest(manifest), size)
            check_free_space(shards_dir, num_new_bytes(raw, params.dtype, size, step.dir) - step.num_bytes, DTYPE_HINT)
            raw.verify(exclude=files_verified_on_read(raw, size), map_files=map_tasks)
            tally = Tally(progress, "Normalizing", raw.manifest.num_samples)
            splits = write_normalized_shards(raw, step, normalization, params.dtype, size, map_tasks, tally.add)
            raw.check_unchanged()
            copied = tuple(copy_set_file(raw.dir, file, step.dir) for file in raw.manifest.files)
            manifest = replace(manifest, splits=splits, files=copied)
            card = [write_set_file(step.dir, name, text) for name, text in render_card(manifest).items()]
            manifest = replace(manifest, files=(*copied, *card))
            save_manifest(manifest, step.dir)
    return manifest


def _choose_normalization(raw: ShardSet, stats_path: Path, params: "NormalizeParams") -> Normalization:
    with input_hint(suffix=": run `dvc repro`"):
        stats = read_statistics(stats_path)
    if (stats.dataset, set(stats.mean)) != (raw.manifest.dataset, set(raw.manifest.channels)):
        raise InputError(f"{stats_path}: not the statistics of {raw.dir}: run `dvc repro --force stats`")
    with input_hint(prefix="params.yaml: normalize.scheme: "):
        custom = params.mean, params.std
        normalization = choose_normalization(params.scheme, stats, raw.manifest.channels, custom)
        normalization_table(normalization, params.dtype)  # rejects values that the dtype can't hold
    return normalization
