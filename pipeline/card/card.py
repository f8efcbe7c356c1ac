"""The files of the card. Both are rendered from the manifest alone."""

from pipeline.card.croissant import render_croissant
from pipeline.card.readme import render_readme
from shardset.manifest import Manifest


def render_card(manifest: Manifest) -> dict[str, str]:
    """Render the card of a normalized shard set, texts by file name. Raw sets have none."""
    if manifest.normalization is None:
        return {}
    return {"README.md": render_readme(manifest, manifest.normalization), "croissant.json": render_croissant(manifest)}
