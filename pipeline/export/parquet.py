"""Parquet files as Hugging Face's `datasets` writes them, with a Croissant description of their records."""

import json
from itertools import islice
from math import prod
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from pipeline.export.card import HUB_SPLITS, label_type, render_loading, render_readme
from pipeline.export.croissant import render_croissant
from pipeline.export.samples import Part, PixelSet
from pipeline.runtime.files import open_synced, write_synced
from shardset.manifest import Manifest

# A viewer reads a complete row group to show one of its rows, so groups are small.
MAX_GROUP_ROWS = 1_000
MAX_GROUP_BYTES = 32_000_000

NOTE = """The library `datasets` reads the parquet files: `load_dataset(DIR)`.

`croissant.json` describes the files and their records in the Croissant format. Its `version` is that of the format of
the set that was exported, followed by the first 12 digits of `content_sha256`."""


def write_export(pixels: PixelSet, target_dir: Path) -> None:
    """Write `data/SPLIT-NNNNN-of-NNNNN.parquet`, README.md and croissant.json into an empty folder."""
    manifest = pixels.manifest
    schema, paths = _schema(manifest), []
    (target_dir / "data").mkdir()
    for split in manifest.splits:
        for part in pixels.parts(split):
            path = target_dir / f"data/{HUB_SPLITS[split]}-{part.number:05d}-of-{part.total:05d}.parquet"
            _write_part(path, part, schema, rows_per_group(manifest.image_shape))
            paths.append(path)
    columns = {"image": "image", "label": label_type(manifest)} | ({"source": "string"} if manifest.has_sources else {})
    loading = render_loading(manifest, "data/{split}-*.parquet", columns)
    write_synced(target_dir / "README.md", render_readme(manifest, NOTE, loading))
    write_synced(target_dir / "croissant.json", render_croissant(manifest, target_dir, paths))


def _write_part(path: Path, part: Part, schema: pa.Schema, num_rows: int) -> None:
    # Images and file names hardly ever repeat, so dictionary encoding them would only take time.
    options = {"use_dictionary": ["label"], "write_page_index": True}
    with open_synced(path, "wb") as file, ParquetWriter(file, schema, **options) as writer:
        while samples := list(islice(part.samples, num_rows)):
            rows = [
                {"image": {"bytes": sample.png}, "label": sample.label, "source": sample.source} for sample in samples
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=num_rows)


def _schema(manifest: Manifest) -> pa.Schema:
    """Return the columns, with the metadata by which `datasets` knows images and class names."""
    columns = {
        "image": (pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}),
        "label": (pa.int64(), {"names": manifest.classes, "_type": "ClassLabel"}),
    }
    if manifest.has_sources:
        columns["source"] = (pa.string(), {"dtype": "string", "_type": "Value"})
    features = {name: feature for name, (_, feature) in columns.items()}
    return pa.schema(
        {name: kind for name, (kind, _) in columns.items()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def rows_per_group(image_shape: tuple[int, int, int]) -> int:
    """Return how many images, (C, H, W), a row group holds."""
    return max(1, min(MAX_GROUP_ROWS, MAX_GROUP_BYTES // prod(image_shape)))
