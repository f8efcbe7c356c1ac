"""README.md: the dataset card, for people and for dataset hubs."""

import json

from pipeline.card.origins import ORIGINS
from shardset.manifest import SAMPLES_NAME, Manifest, Normalization, Preparation

CARD = """---
pretty_name: {pretty_name}
license: unknown
task_categories:
- image-classification
viewer: false
{configs}  features:
  - name: image
    dtype:
      array3_d:
        dtype: {dtype}
        shape: {shape}
  - name: label
    dtype:
      class_label:
        names:
{class_names}
  splits:
{splits}
  download_size: {num_bytes}
  dataset_size: {num_bytes}
---

# {name}, normalized

{description}{preparation}Images are {dtype} `.npy` arrays of shape (N, {dimensions}), channels first ({channels}).
Labels are int64 `.npy` arrays. {how}
mean {mean} and std {std} per channel (scheme `{scheme}`).

```python
import json
from pathlib import Path

import numpy as np

manifest = json.loads(Path("manifest.json").read_bytes())
for shard in manifest["splits"]["train"]["shards"]:
    images = np.load(shard["images"]["path"], mmap_mode="c")
    labels = np.load(shard["labels"]["path"])  # indices into manifest["classes"]
```

| split | samples | shards | bytes |
|---|--:|--:|--:|
{table}

`manifest.json` lists the SHA-256 of each file. Its `content_sha256`, the hash of all pixels and labels in order, is
`{content_sha256}`.

{readable}
`croissant.json` describes the files and the classes in the Croissant format. It has no records of images, because
readers of that format can't read .npy files; read them as shown above. Its `version` is the version of the manifest's
format, followed by the first 12 digits of `content_sha256`.
{citation}"""

PREPARATION = """The images come from image files: {resized}a square of {size} pixels was cut from the centre.
"""
SOURCES = """`samples.csv` of each split names the file of each sample.
"""

# Without a config, `datasets` would take the tables for the dataset itself.
SAMPLES_CONFIG = """configs:
- config_name: samples
  data_files:
{data_files}
dataset_info:
- config_name: images
"""

NOT_READABLE = """The library `datasets` can't read `.npy` files, so `load_dataset` finds no data files here.
"""
SAMPLES_READABLE = """The library `datasets` can't read `.npy` files, so `load_dataset` gives the tables
`samples.csv` alone.
"""


def render_readme(manifest: Manifest, normalization: Normalization) -> str:
    """Render README.md of a normalized shard set."""
    splits = manifest.splits.items()
    preparation = describe_preparation(manifest.preparation) if manifest.preparation else ""
    return CARD.format(
        pretty_name=yaml_string(dataset_name(manifest)),
        configs=_samples_config(manifest) if manifest.has_sources else "dataset_info:\n",
        name=dataset_name(manifest),
        description=describe_origin(manifest),
        preparation=preparation + (SOURCES if manifest.has_sources else ""),
        dtype=manifest.dtype,
        shape=list(manifest.image_shape),
        dimensions=", ".join(map(str, manifest.image_shape)),
        channels=", ".join(manifest.channels),
        class_names=list_class_names(manifest),
        splits="\n".join(
            f"  - name: {split}\n    num_bytes: {of.num_bytes}\n    num_examples: {of.samples}" for split, of in splits
        ),
        num_bytes=manifest.num_bytes,
        how="The images are raw pixels. To normalize a pixel v, compute (v / 255 - mean) / std with"
        if manifest.dtype == "uint8"
        else "Each value is (v / 255 - mean) / std of a pixel v, with",
        mean=list(normalization.mean),
        std=list(normalization.std),
        scheme=normalization.scheme,
        table="\n".join(f"| {split} | {of.samples:,} | {len(of.shards)} | {of.num_bytes:,} |" for split, of in splits),
        content_sha256=manifest.content_sha256,
        readable=SAMPLES_READABLE if manifest.has_sources else NOT_READABLE,
        citation=cite(manifest),
    )


def dataset_name(manifest: Manifest) -> str:
    """Return the name of a dataset for people."""
    origin = ORIGINS.get(manifest.dataset)
    return origin.name if origin else manifest.dataset


def describe_origin(manifest: Manifest) -> str:
    """Return a line on a known dataset, empty for others."""
    origin = ORIGINS.get(manifest.dataset)
    return f"{origin.description}\n" if origin else ""


def describe_preparation(preparation: Preparation) -> str:
    """Return a line on how image files became pixels."""
    resized = f"the short side was resized to {preparation.resize} pixels, and " if preparation.resize else ""
    return PREPARATION.format(resized=resized, size=preparation.size)


def cite(manifest: Manifest) -> str:
    """Return the citation of a known dataset as a code block, empty for others."""
    origin = ORIGINS.get(manifest.dataset)
    return f"\n```bibtex\n{origin.citation}\n```\n" if origin else ""


def list_class_names(manifest: Manifest) -> str:
    """Return the lines of YAML that map labels to class names, as `dataset_info` has them."""
    return "\n".join(f"          '{index}': {yaml_string(name)}" for index, name in enumerate(manifest.classes))


def yaml_string(text: str) -> str:
    """Return text as a YAML string."""
    # JSON in ASCII writes an emoji as two escapes, which YAML reads as two characters. Manifests have no names with
    # characters that YAML would need escaped.
    return json.dumps(text, ensure_ascii=False)


def _samples_config(manifest: Manifest) -> str:
    files = "\n".join(f"  - split: {split}\n    path: {split}/{SAMPLES_NAME}" for split in manifest.splits)
    return SAMPLES_CONFIG.format(data_files=files)
