"""README.md of an export, for people, and for `datasets` and the Hub where they can read the format."""

from collections.abc import Mapping

from pipeline.card.readme import (
    cite,
    dataset_name,
    describe_origin,
    describe_preparation,
    list_class_names,
    yaml_string,
)
from shardset.manifest import Manifest, Split

HUB_SPLITS: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}

CARD = """---
pretty_name: {pretty_name}
license: unknown
task_categories:
- image-classification
{loading}---

# {name}

{description}{preparation}Images are lossless PNG files of {height} x {width} pixels ({channels}).

{note}

| split | samples |
|---|--:|
{table}

`content_sha256`, the hash of all pixels and labels in order, is
`{content_sha256}`.
{citation}"""

LOADING = """configs:
- config_name: default
  data_files:
{data_files}
dataset_info:
  features:
{features}
  splits:
{splits}
"""

LABEL = """
    dtype:
      class_label:
        names:
{class_names}"""


def render_readme(manifest: Manifest, note: str, loading: str) -> str:
    """Render README.md, with what `render_loading` rendered if `datasets` reads the format."""
    _, height, width = manifest.image_shape
    return CARD.format(
        pretty_name=yaml_string(dataset_name(manifest)),
        loading=loading,
        name=dataset_name(manifest),
        description=describe_origin(manifest),
        preparation=describe_preparation(manifest.preparation) if manifest.preparation else "",
        height=height,
        width=width,
        channels=", ".join(manifest.channels),
        note=note,
        table="\n".join(
            f"| {HUB_SPLITS[split]} | {of_split.samples:,} |" for split, of_split in manifest.splits.items()
        ),
        content_sha256=manifest.content_sha256,
        citation=cite(manifest),
    )


def render_loading(manifest: Manifest, pattern: str, columns: Mapping[str, str]) -> str:
    """Render the part of the front matter that `datasets` reads.

    `pattern` matches the files of a split; {split} in it stands for the split's name on the Hub. `columns` maps each
    column to its type, in YAML. `datasets` refuses to load another number of samples than is listed here.
    """
    splits = [(HUB_SPLITS[split], of_split.samples) for split, of_split in manifest.splits.items()]
    return LOADING.format(
        data_files="\n".join(f"  - split: {split}\n    path: {pattern.format(split=split)}" for split, _ in splits),
        features="\n".join(f"  - name: {name}{_indent(kind)}" for name, kind in columns.items()),
        splits="\n".join(f"  - name: {split}\n    num_examples: {samples}" for split, samples in splits),
    )


def label_type(manifest: Manifest) -> str:
    """Return the type of labels, with the class names, in YAML."""
    return LABEL.format(class_names=list_class_names(manifest))


def _indent(kind: str) -> str:
    return kind if kind.startswith("\n") else f"\n    dtype: {kind}"
