"""Command `export`: a set of pixels in the format of another library."""

from math import prod
from pathlib import Path

from pipeline.export.formats import Format, find_writer, import_library
from pipeline.export.samples import Pixels, check_channels
from pipeline.runtime.files import check_free_space, replace_dir
from pipeline.runtime.tasks import Progress, Tally
from pipeline.stages.remedies import repair_hint
from shardset.errors import InputError
from shardset.manifest import Manifest
from shardset.shards import open_shards
from shardset.threads import ignore

SAMPLE_OVERHEAD = 3_072  # bytes at most, besides pixels: those of a PNG file, and of three files in a tar file
SPACE_HINT = "Free space, or choose a folder on another disk."


def export_set(shards_dir: Path, target_dir: Path, target: Format, progress: Progress = ignore) -> Manifest:
    """Write a set of pixels to a new folder in the format of another library, and return the set's manifest.

    Raises InputError if the set can't be exported, the library is missing or the folder has files; CorruptDataError if
    a byte differs from the manifest; and PipelineError if the disk has too little free space.
    """
    library, write_export = import_library(target), find_writer(target)
    with repair_hint():
        shards = open_shards(shards_dir)
        manifest = shards.manifest
        if manifest.dtype != "uint8":
            raise InputError(
                f"{shards_dir}: holds {manifest.dtype} values, but only uint8 pixels can be exported: export data/raw"
            )
        check_channels(manifest, shards_dir)
        _check_target(target_dir, shards_dir)
        with replace_dir(target_dir) as new_dir:
            num_bytes = manifest.num_samples * (prod(manifest.image_shape) + SAMPLE_OVERHEAD)
            check_free_space(target_dir, num_bytes, SPACE_HINT)
            shards.verify(exclude={shard.images for of in manifest.splits.values() for shard in of.shards})
            pixels = Pixels(shards, Tally(progress, "Exporting", manifest.num_samples).add)
            write_export(pixels, new_dir, library)
            shards.check_unchanged()
            _check_target(target_dir, shards_dir)  # files may have been put there in the meantime
    return manifest


def _check_target(target_dir: Path, shards_dir: Path) -> None:
    """Raise InputError unless a folder is new or empty, and outside the set."""
    if target_dir.resolve().is_relative_to(shards_dir.resolve()):
        raise InputError(f"{target_dir}: is within {shards_dir}; choose a folder outside of it")
    if target_dir.exists() and not (target_dir.is_dir() and not any(target_dir.iterdir())):
        raise InputError(f"{target_dir}: already exists; choose a new folder, or remove it first")
