"""Shards in MDS, the format of MosaicML's library `streaming`."""

import os
from pathlib import Path

from streaming import MDSWriter

from pipeline.export.card import HUB_SPLITS, render_readme
from pipeline.export.samples import PixelSet
from pipeline.runtime.files import write_synced
from shardset.errors import named_os_errors
from shardset.models import render_json

NOTE = """The library `streaming` reads the folder of each split: `StreamingDataset(local=DIR, split="train")`. With
`validate_hash="sha256"` it compares each shard with its hash. `classes.json` has the class names in the order of the
labels."""
# Otherwise `datasets` would load index.json as the dataset. It can't read .mds files, and says so.
LOADING = """configs:
- config_name: default
  data_files: "*/*.mds"
"""


def write_export(pixels: PixelSet, target_dir: Path) -> None:
    """Write a folder of shards for each split, classes.json and README.md into an empty folder."""
    columns = {"image": "png", "label": "int"} | ({"source": "str"} if pixels.manifest.has_sources else {})
    for split in pixels.manifest.splits:
        split_dir = target_dir / HUB_SPLITS[split]
        with named_os_errors(split_dir):
            with MDSWriter(out=str(split_dir), columns=columns, hashes=["sha256"]) as writer:
                for sample in pixels.samples(split):
                    writer.write({"image": sample.png, "label": sample.label, "source": sample.source})
            _sync_files(split_dir)
    write_synced(target_dir / "README.md", render_readme(pixels.manifest, NOTE, LOADING))
    write_synced(target_dir / "classes.json", render_json(pixels.manifest.classes))


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
