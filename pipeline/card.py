"""The card of a normalized shard set: README.md for people and dataset hubs, croissant.json for programs.

Both follow from the manifest alone, so `ShardSet.verify` finds every byte of them that differs.
"""

import json
from dataclasses import dataclass

from pipeline.manifest import SPLITS, Manifest, Normalization

CARD_NAME = "README.md"
CROISSANT_NAME = "croissant.json"


@dataclass(frozen=True)
class Origin:
    """Where a dataset comes from; `citation` is a BibTeX entry."""

    name: str
    creators: tuple[str, ...]
    published: str
    url: str
    description: str
    citation: str


ORIGINS = {
    "cifar10": Origin(
        name="CIFAR-10",
        creators=("Alex Krizhevsky", "Vinod Nair", "Geoffrey Hinton"),
        published="2009",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        description="Small colour photographs of ten classes, by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton.",
        citation="""@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009},
  url = {https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf}
}""",
    ),
}

# As the specification of Croissant 1.0 gives it.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

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

{description}Images of {shape}, channel first ({channels}), as {dtype} .npy files, with labels as int64 ones.
{how}
mean {mean} and std {std} by channel (scheme `{scheme}`).

```python
import json
from pathlib import Path

import numpy as np

manifest = json.loads(Path("manifest.json").read_bytes())
for shard in manifest["splits"]["train"]["shards"]:
    images = np.load(shard["images"]["path"], mmap_mode="r")
    labels = np.load(shard["labels"]["path"])  # indices into manifest["classes"]
```

| split | samples | shards | bytes |
|---|--:|--:|--:|
{table}

`manifest.json` has the SHA-256 of each file. The SHA-256 of all pixels and labels in their original order is
`{content_sha256}`.

`croissant.json` describes the files, each with its SHA-256, and the classes in the Croissant format. It has no records
of images, since readers of that format don't read .npy: they are read as above.
{citation}"""


def render_card(manifest: Manifest) -> dict[str, str]:
    """Render the card of a shard set, texts by file name; of one that is not normalized there is none."""
    if manifest.normalization is None:
        return {}
    croissant = json.dumps(_croissant(manifest), indent=2) + "\n"
    return {CARD_NAME: _readme(manifest, manifest.normalization), CROISSANT_NAME: croissant}


def _readme(manifest: Manifest, normalization: Normalization) -> str:
    origin = ORIGINS.get(manifest.dataset)
    num_bytes = {
        split: sum(shard.images.bytes + shard.labels.bytes for shard in of.shards)
        for split, of in manifest.splits.items()
    }
    splits = [(split, manifest.splits[split], num_bytes[split]) for split in SPLITS]
    return CARD.format(
        # A string of JSON is one of YAML, whatever characters it has.
        pretty_name=json.dumps(origin.name if origin else manifest.dataset),
        name=origin.name if origin else manifest.dataset,
        description=f"{origin.description}\n" if origin else "",
        dtype=manifest.dtype,
        shape=list(manifest.image_shape),
        channels=", ".join(manifest.channels),
        names="\n".join(f"          '{index}': {json.dumps(name)}" for index, name in enumerate(manifest.classes)),
        splits="\n".join(
            f"  - name: {split}\n    num_bytes: {size}\n    num_examples: {of.samples}" for split, of, size in splits
        ),
        num_bytes=manifest.num_bytes,
        how="They are pixels v, for the reader to turn into (v / 255 - mean) / std with"
        if manifest.dtype == "uint8"
        else "Each value is (v / 255 - mean) / std of a pixel v, with",
        mean=list(normalization.mean),
        std=list(normalization.std),
        scheme=normalization.scheme,
        table="\n".join(f"| {split} | {of.samples:,} | {len(of.shards)} | {size:,} |" for split, of, size in splits),
        content_sha256=manifest.content_sha256,
        citation=f"\n```bibtex\n{origin.citation}\n```\n" if origin else "",
    )


def _croissant(manifest: Manifest) -> dict[str, object]:
    origin = ORIGINS.get(manifest.dataset)
    files = [
        file for split in SPLITS for shard in manifest.splits[split].shards for file in (shard.images, shard.labels)
    ]
    about: dict[str, object] = {}
    if origin:
        creators = [{"@type": "sc:Person", "name": name} for name in origin.creators]
        about = {
            "url": origin.url,
            "creator": creators,
            "datePublished": origin.published,
            "license": "unknown",
            "citeAs": origin.citation,
        }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.dataset,
        "description": f"{origin.description if origin else manifest.dataset} {manifest.summary()}.",
        **about,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/x-npy",
                "sha256": file.sha256,
            }
            for file in files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "classes",
                "name": "classes",
                "description": "The classes, by the index that labels hold.",
                "dataType": "sc:Enumeration",
                "key": {"@id": "classes/index"},
                "field": [
                    {"@type": "cr:Field", "@id": "classes/index", "name": "classes/index", "dataType": "sc:Integer"},
                    {"@type": "cr:Field", "@id": "classes/name", "name": "classes/name", "dataType": "sc:Text"},
                ],
                "data": [{"classes/index": index, "classes/name": name} for index, name in enumerate(manifest.classes)],
            }
        ],
    }
