"""Command `export`: a set of pixels in the format of another library."""

import os
from math import prod
from pathlib import Path

from pipeline.export.formats import Format, load_writer
from pipeline.export.samples import PixelSet, check_channels
from pipeline.runtime.files import check_free_space, replace_dir
from pipeline.runtime.tasks import Progress, Tally
from pipeline.stages.remedies import repair_hint
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Manifest
from shardset.shards import open_shards
from shardset.threads import ignore

# Bytes for each sample, besides its pixels and its name: those of a PNG file, and of three files in a tar file.
OVERHEAD = {Format.parquet: 256, Format.webdataset: 3_072, Format.mds: 256}
SPACE_HINT = "Free space, or choose a folder on another disk."


def export_set(shards_dir: Path, target_dir: Path, export_format: Format, progress: Progress = ignore) -> Manifest:
    """Write a set of pixels to a new folder in the format of another library, and return the set's manifest.

    Raises InputError if the set can't be exported, the library is missing or the folder exists; CorruptDataError if a
    byte differs from the manifest; and PipelineError if the disk has too little free space.
    """
    write_export = load_writer(export_format)
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
            num_bytes = manifest.num_samples * (prod(manifest.image_shape) + OVERHEAD[export_format])
            check_free_space(target_dir, num_bytes, SPACE_HINT)
            images = {shard.images for of_split in manifest.splits.values() for shard in of_split.shards}
            pixels = PixelSet(shards, Tally(progress, "Exporting", manifest.num_samples).add)
            try:
                shards.verify(exclude=images)
                write_export(pixels, new_dir)
                shards.verify(exclude=images)  # again, because files may have changed before they were read
            except CorruptDataError:
                shards.check_unchanged()  # the files of a set that was replaced are not damaged
                raise
            shards.check_unchanged()
            _check_target(target_dir, shards_dir)  # again, because someone else may have made it
    return manifest


def _check_target(target_dir: Path, shards_dir: Path) -> None:
    """Raise InputError unless a folder is new, and outside of the set."""
    if Path(os.path.realpath(target_dir)).is_relative_to(os.path.realpath(shards_dir)):
        raise InputError(f"{target_dir}: is within {shards_dir}; choose a folder outside of it")
    if os.path.lexists(target_dir):
        raise InputError(f"{target_dir}: already exists; choose a new folder")
