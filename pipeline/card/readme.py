"""README.md: the dataset card, for people and for dataset hubs."""

import json

from pipeline.card.origins import ORIGINS
from shardset.manifest import Manifest, Normalization, Preparation

CARD = """---
pretty_name: {pretty_name}
license: unknown
task_categories:
- image-classification
viewer: false
dataset_info:
  features:
  - name: image
    dtype:
      array3_d:
        dtype: {dtype}
        shape: {shape}
  - name: label
    dtype:
      class_label:
        names:
{names}
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

`croissant.json` describes the files and the classes in the Croissant format. It has no records of images, because
readers of that format can't read .npy files; read them as shown above.
{citation}"""

PREPARATION = """The images come from image files: {resized}a square of {size} pixels was cut from the centre.
`samples.csv` of each split names the file of each sample.
"""


def render_readme(manifest: Manifest, normalization: Normalization) -> str:
    """Render README.md of a normalized shard set."""
    origin = ORIGINS.get(manifest.dataset)
    splits = manifest.splits.items()
    return CARD.format(
        pretty_name=_yaml_string(origin.name if origin else manifest.dataset),
        name=origin.name if origin else manifest.dataset,
        description=f"{origin.description}\n" if origin else "",
        preparation=_describe(manifest.preparation) if manifest.preparation else "",
        dtype=manifest.dtype,
        shape=list(manifest.image_shape),
        dimensions=", ".join(map(str, manifest.image_shape)),
        channels=", ".join(manifest.channels),
        names="\n".join(f"          '{index}': {_yaml_string(name)}" for index, name in enumerate(manifest.classes)),
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
        citation=f"\n```bibtex\n{origin.citation}\n```\n" if origin else "",
    )


def _describe(preparation: Preparation) -> str:
    resized = f"the short side was resized to {preparation.resize} pixels, and " if preparation.resize else ""
    return PREPARATION.format(resized=resized, size=preparation.size)


def _yaml_string(text: str) -> str:
    # JSON in ASCII writes an emoji as two escapes, which YAML reads as two characters. Manifests have no names with
    # characters that YAML would need escaped.
    return json.dumps(text, ensure_ascii=False)
