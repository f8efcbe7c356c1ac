"""Stage `normalize`: pixels to normalized shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.card.card import render_card
from pipeline.numerics.schemes import choose_normalization
from pipeline.runtime.files import replace_dir
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.normalized import files_verified_on_read, write_normalized_shards
from pipeline.shards.writer import save_manifest, write_set_file
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import input_hint, repair_hint
from shardset.errors import InputError
from shardset.manifest import Manifest, Normalization
from shardset.normalization import normalization_table
from shardset.shards import ShardSet
from shardset.statistics import read_statistics

if TYPE_CHECKING:
    from pipeline.params import NormalizeParams


def normalize_shards(
    raw_dir: Path, stats_path: Path, shards_dir: Path, params: "NormalizeParams", scheduler: str | None = None
) -> Manifest:
    """Replace `shards_dir` with a normalized shard set; `scheduler` as in `map_tasks`.

    Raises InputError if the params or the statistics don't fit the data, and CorruptDataError if data/raw is damaged.
    """
    with repair_hint():
        raw = open_raw(raw_dir)
        raw.verify(exclude=files_verified_on_read(raw, params.samples_per_shard), map_files=map_tasks)
        normalization = _choose_normalization(raw, stats_path, params)
        with replace_dir(shards_dir) as new_dir:
            size = params.samples_per_shard
            splits = write_normalized_shards(raw, new_dir, normalization, params.dtype, size, scheduler)
            raw.check_unchanged()
            manifest = replace(raw.manifest, dtype=params.dtype, normalization=normalization, splits=splits, files=())
            texts = raw.read_files() | render_card(manifest)
            files = [write_set_file(new_dir, name, text) for name, text in texts.items()]
            manifest = replace(manifest, files=tuple(files))
            save_manifest(manifest, new_dir)
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
