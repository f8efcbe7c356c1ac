"""The report as a page and as text, rendered from templates."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from pipeline.audit.details import HISTOGRAM_LIMITS, Band, Details
from pipeline.audit.lists import ListedPair
from pipeline.card.origins import ORIGINS
from pipeline.numerics.reduce import reduce_images
from pipeline.report.balance import balance_sentence, shifted_classes, unbalanced_splits
from pipeline.report.duplicates import CLOSE
from pipeline.report.findings import Normalized, find_findings, raw_bytes
from pipeline.report.galleries import ENDS, MEASURES, Galleries, choose_images, images_of, kind_of
from pipeline.report.pictures import Image, Png, draw_thumbnails, draw_values
from pipeline.report.plots import SPLIT_COLORS, plot_channels, plot_histogram
from pipeline.report.proof import value_table
from pipeline.report.wording import counted, megabytes, share
from shardset.manifest import Manifest
from shardset.normalization import normalization_of
from shardset.reader import Array
from shardset.shards import ShardSet

NUM_VALUE_IMAGES = 3  # whose normalized values are drawn
DIGITS = 4  # of mean and std in the line to copy

CODE = re.compile(r"\bdata/[\w/]+\.csv\b|\baudit\.ignore\b")
# Underscores within a word are only themselves.
MARKDOWN_SYNTAX = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")


def render_page(
    raw: ShardSet,
    shards: ShardSet,
    details: Details,
    pairs: Sequence[ListedPair],
    normalized: Normalized,
    decimals: int,
) -> str:
    """Render report.html; `normalized` has the figures of normalized values."""
    table = value_table(shards)
    findings = find_findings(shards.manifest, details, pairs, normalized)
    examples = [image for of in findings for group in of.examples for image in group]
    galleries = choose_images(raw, details, pairs, len(examples))
    images = [*galleries.images(), *examples]
    names = _name_images(raw, images)
    return _render(
        "report.html",
        decimals,
        **_collect_facts(shards.manifest, details, pairs, normalized),
        findings=findings,
        **_collect_choices(raw.manifest, galleries, names),
        galleries=galleries,
        ends=ENDS,
        measures=MEASURES,
        images_of=images_of,
        thumbnails=draw_thumbnails(raw, images, galleries.side),
        names=names,
        value_rows=_draw_values(raw, galleries, table),
        limit=float(np.abs(table).max()),
        split_colors=SPLIT_COLORS,
        largest_share=_largest_share(details),
        channel_plots=plot_channels(details.splits, table),
        image_plots=[plot_histogram(details.splits, name, limit) for name, limit in HISTOGRAM_LIMITS.items()],
    )


def render_text(
    manifest: Manifest, details: Details, pairs: Sequence[ListedPair], normalized: Normalized, decimals: int
) -> str:
    """Render report.md; `manifest` is that of the normalized set."""
    findings = find_findings(manifest, details, pairs, normalized)
    return _render("report.md", decimals, findings=findings, **_collect_facts(manifest, details, pairs, normalized))


def escape_markdown(name: str) -> str:
    """Escape text for report.md, where it may be in a table."""
    return MARKDOWN_SYNTAX.sub(r"\\\g<0>", name)


def mark_code_in_html(text: str) -> Markup:
    """Escape text for report.html, with the names of files and settings as code."""
    return Markup(CODE.sub(r"<code>\g<0></code>", str(escape(text))))  # noqa: S704


def mark_code_in_markdown(text: str) -> str:
    """Escape text for report.md, with the names of files and settings as code."""
    return CODE.sub(r"`\g<0>`", escape_markdown(text))


def normalize_line(manifest: Manifest) -> str:
    """Write torchvision's transform, with rounded figures, to be copied."""

    def digits(values: Sequence[float]) -> str:
        return f"({', '.join(f'{value:.{DIGITS}f}' for value in values)}{',' * (len(values) == 1)})"

    normalization = normalization_of(manifest)
    return f"transforms.Normalize(mean={digits(normalization.mean)}, std={digits(normalization.std)})"


def color_of(mean_color: Sequence[float]) -> str:
    """Write a color, by channel in [0, 1], for CSS: of the first three channels, or else of the first as grey."""
    channels = mean_color[:3] if len(mean_color) >= len("rgb") else [mean_color[0]] * 3
    return " ".join(str(round(255 * value)) for value in channels)


def _collect_facts(
    manifest: Manifest, details: Details, pairs: Sequence[ListedPair], normalized: Normalized
) -> dict[str, object]:
    """Collect what both templates show."""
    origin = ORIGINS.get(manifest.dataset)
    return {
        "manifest": manifest,
        "title": origin.name if origin else "Image dataset" if manifest.dataset == "images" else manifest.dataset,
        "origin": origin,
        "raw_bytes": raw_bytes(manifest),
        "samples_per_shard": max(shard.samples for of in manifest.splits.values() for shard in of.shards),
        "normalize_line": normalize_line(manifest),
        "details": details,
        "normalized": normalized,
        "even": not (unbalanced_splits(details) or shifted_classes(details)),
        "balance": balance_sentence(details),
        "num_pairs": len(pairs),
        "close": CLOSE,
        "bands": _group_bands(details),
        "conflicts": sorted((of for of in pairs if of.is_conflict), key=lambda of: of.pair.distance),
    }


def _collect_choices(manifest: Manifest, galleries: Galleries, names: Mapping[Image, str]) -> dict[str, object]:
    """Collect what the page's pairs and images can be chosen by: for each option a value and a text."""
    indices = {name: index for index, name in enumerate(manifest.classes)}
    drawn = [of for gallery in galleries.pairs for of in gallery.pairs]
    of_pairs = {name for of in drawn for name in (of.label, of.other_label)}
    of_oddities = {names[image] for of in galleries.oddities for image, _ in of.images}
    kinds = dict.fromkeys((of.pair.split, of.pair.other_split) for of in drawn)
    return {
        "class_indices": indices,
        "pair_classes": [(index, name) for name, index in indices.items() if name in of_pairs],
        "odd_classes": [(index, name) for name, index in indices.items() if name in of_oddities],
        "kinds": [("-".join(kind), kind_of(*kind)[1]) for kind in kinds],
        "reasons": [(of.name.replace(" ", "-"), of.name) for of in galleries.oddities],
        "all_splits": [(split, split) for split in manifest.splits],
    }


def _largest_share(details: Details) -> float:
    """Find the largest share of a class in any split."""
    return max(of_class.samples / of.samples for of in details.splits.values() for of_class in of.classes.values())


def _group_bands(details: Details) -> dict[str, list[Band]]:
    """Group the bands by kind of pair, in their order."""
    grouped: dict[str, list[Band]] = {}
    for band in details.bands:
        grouped.setdefault(kind_of(band.split, band.other_split)[1], []).append(band)
    return grouped


def _name_images(raw: ShardSet, images: Iterable[Image]) -> dict[Image, str]:
    """Find the class name of each image."""
    labels = {split: raw.labels(split) for split in raw.manifest.splits}
    return {(split, index): raw.manifest.classes[labels[split][index]] for split, index in images}


def _draw_values(raw: ShardSet, galleries: Galleries, table: Array) -> list[tuple[Image, list[Png]]]:
    """Draw the normalized values of one image of a few classes, by channel; `table`, (C, 256), has the values."""
    limit = float(np.abs(table).max())
    drawn = []
    for image, *_ in [*galleries.samples.values()][:NUM_VALUE_IMAGES]:
        (pixels,) = reduce_images(raw.take(image[0], np.array([image[1]])), galleries.side)
        drawn.append((image, [draw_values(*channel, limit) for channel in zip(pixels, table, strict=True)]))
    return drawn


def _render(name: str, decimals: int, **facts: object) -> str:
    def number(value: float) -> str:
        # Adding 0.0 avoids "-0.0000".
        return f"{round(value, decimals) + 0.0:.{decimals}f}"

    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "count": "{:,}".format,
        "counted": counted,
        "share": share,
        "megabytes": megabytes,
        "color": color_of,
        "markdown": escape_markdown,
        "code_html": mark_code_in_html,
        "code_markdown": mark_code_in_markdown,
    }
    return environment.get_template(f"{name}.j2").render(**facts)
