"""Stage `normalize`: pixels to normalized shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pipeline.card.card import render_card
from pipeline.numerics.schemes import choose_normalization
from pipeline.runtime.files import replace_dir
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.normalized import plan_pieces, read_normalized
from pipeline.shards.writer import plan_shards, save_manifest, write_set_file, write_shards
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import input_hint, repair_hint
from shardset.errors import InputError
from shardset.manifest import Manifest, Normalization, Split
from shardset.normalization import normalization_table
from shardset.shards import Array, ShardSet
from shardset.statistics import read_statistics

if TYPE_CHECKING:
    from pipeline.params import NormalizeParams


def normalize_shards(
    raw_dir: Path, stats_path: Path, shards_dir: Path, params: "NormalizeParams", scheduler: str | None = None
) -> Manifest:
    """Replace `shards_dir` by a normalized shard set; `scheduler` as in `map_tasks`.

    Raises InputError if the params or the statistics don't fit the data, and CorruptDataError if data/raw is damaged.
    """
    with repair_hint():
        raw = open_raw(raw_dir)
        _verify_rest(raw, params.samples_per_shard)
        normalization = _choose_normalization(raw, stats_path, params)

        def image_blocks(split: Split, start: int, stop: int) -> Iterator[Array]:
            return read_normalized(raw, plan_pieces(raw, split, start, stop), normalization, params.dtype)

        with replace_dir(shards_dir) as new_dir:
            splits = write_shards(
                new_dir,
                {split: raw.labels(split) for split in raw.manifest.splits},
                image_blocks,
                dtype=params.dtype,
                image_shape=raw.manifest.image_shape,
                samples_per_shard=params.samples_per_shard,
                scheduler=scheduler,
            )
            raw.check_unchanged()
            manifest = replace(raw.manifest, dtype=params.dtype, normalization=normalization, splits=splits, files=())
            card = [write_set_file(new_dir, name, text) for name, text in render_card(manifest).items()]
            manifest = replace(manifest, files=tuple(card))
            save_manifest(manifest, new_dir)
    return manifest


def _verify_rest(raw: ShardSet, samples_per_shard: int) -> None:
    """Verify all that is not verified while it is read: labels, other files, and raw shards that are read in parts."""
    verified_later = {
        piece.shard.images
        for split, shards in raw.manifest.splits.items()
        for task in plan_shards(split, shards.samples, samples_per_shard)
        for piece in plan_pieces(raw, split, task.start, task.stop)
        if piece.is_complete
    }
    raw.verify(exclude=verified_later, map_files=map_tasks)


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
