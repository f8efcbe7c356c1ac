"""Parquet files as Hugging Face's library `datasets` writes them, which also have records in the Croissant format."""

import json
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

from pipeline.export.card import HUB_SPLITS, label_type, render_loading, render_readme
from pipeline.export.croissant import render_croissant
from pipeline.export.samples import Part, Pixels
from pipeline.runtime.files import open_synced, write_synced

# Whoever shows one row reads the row group that it is in.
MAX_GROUP_ROWS = 1_000
MAX_GROUP_BYTES = 32_000_000

NOTE = """The library `datasets` reads the parquet files: `load_dataset(DIR)`.

`croissant.json` describes the files and their records in the Croissant format. Its `version` is that of the format of
the set that was exported, followed by the first 12 digits of `content_sha256`."""


def write_export(pixels: Pixels, target_dir: Path, library: Any) -> None:  # noqa: ANN401 (pyarrow.parquet)
    """Write `data/SPLIT-NNNNN-of-NNNNN.parquet`, README.md and croissant.json into an empty folder."""
    manifest = pixels.manifest
    schema, paths = _schema(pixels), []
    (target_dir / "data").mkdir()
    for split in manifest.splits:
        for part in pixels.parts(split):
            path = target_dir / f"data/{HUB_SPLITS[split]}-{part.number:05d}-of-{part.total:05d}.parquet"
            _write_part(path, part, schema, rows_per_group(manifest.image_shape), library)
            paths.append(path)
    columns = {"image": "image", "label": label_type(manifest)} | ({"source": "string"} if pixels.has_sources else {})
    loading = render_loading(manifest, "data/{split}-*.parquet", columns)
    write_synced(target_dir / "README.md", render_readme(manifest, NOTE, loading))
    croissant = render_croissant(manifest, target_dir, paths, has_sources=pixels.has_sources)
    write_synced(target_dir / "croissant.json", croissant)


def _write_part(path: Path, part: Part, schema: Any, num_rows: int, library: Any) -> None:  # noqa: ANN401
    import pyarrow as pa

    # Dictionaries of values that hardly ever repeat would only take time.
    options = {"use_dictionary": ["label"], "write_page_index": True}
    with open_synced(path, "wb") as file, library.ParquetWriter(file, schema, **options) as writer:
        while samples := list(islice(part.samples, num_rows)):
            rows = [
                {"image": {"bytes": sample.png}, "label": sample.label, "source": sample.source} for sample in samples
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=num_rows)


def _schema(pixels: Pixels) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """Return the columns, with the metadata by which `datasets` knows images and class names."""
    import pyarrow as pa

    columns = {
        "image": (pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}),
        "label": (pa.int64(), {"names": pixels.manifest.classes, "_type": "ClassLabel"}),
    }
    if pixels.has_sources:
        columns["source"] = (pa.string(), {"dtype": "string", "_type": "Value"})
    features = {name: feature for name, (_, feature) in columns.items()}
    return pa.schema(
        {name: kind for name, (kind, _) in columns.items()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def rows_per_group(image_shape: tuple[int, int, int]) -> int:
    """Return how many images, (C, H, W), a row group holds."""
    return max(1, min(MAX_GROUP_ROWS, MAX_GROUP_BYTES // prod(image_shape)))
