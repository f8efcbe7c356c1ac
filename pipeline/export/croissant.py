"""croissant.json of parquet files: their records, image by image."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.card.croissant import describe_dataset, describe_file
from pipeline.export.card import HUB_SPLITS
from pipeline.runtime.files import hash_file
from shardset.manifest import Manifest
from shardset.models import render_json

PARQUET = "application/x-parquet"


def render_croissant(manifest: Manifest, target_dir: Path, paths: Iterable[Path]) -> str:
    """Render croissant.json of parquet files in `target_dir`, with a record set for each split."""
    files = [
        describe_file(path.relative_to(target_dir).as_posix(), path.stat().st_size, hash_file(path), PARQUET)
        for path in paths
    ]
    splits = [HUB_SPLITS[split] for split in manifest.splits]
    samples = ", ".join(f"{of_split.samples:,} {HUB_SPLITS[split]}" for split, of_split in manifest.splits.items())
    sets: list[dict[str, object]] = [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{split}",
            "name": f"files-{split}",
            "encodingFormat": PARQUET,
            "includes": f"data/{split}-*.parquet",
        }
        for split in splits
    ]
    columns = {"image": "sc:ImageObject", "label": "sc:Integer"} | (
        {"source": "sc:Text"} if manifest.has_sources else {}
    )
    records = [_records(split, columns) for split in splits]
    return render_json(describe_dataset(manifest, f"{samples}, as PNG files in parquet.", [*files, *sets], records))


def _records(split: str, columns: dict[str, str]) -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The samples of the split {split}, in order.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": f"{split}/{name}",
                "dataType": data_type,
                "source": {
                    "fileSet": {"@id": f"files-{split}"},
                    "extract": {"column": name},
                    **({"transform": {"jsonPath": "bytes"}} if name == "image" else {}),
                },
            }
            for name, data_type in columns.items()
        ],
    }
