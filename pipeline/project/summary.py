"""What a source holds, as text of up to 100 columns."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import prod
from statistics import median_low
from textwrap import wrap

import numpy as np

from pipeline.project.suggest import Suggestion, short_side
from pipeline.sources.images.catalog import Catalog
from pipeline.sources.images.decode import Header
from pipeline.sources.images.tables import count_equal
from shardset.models import printable

WIDTH = 100  # columns
INDENT = 12  # columns, of what is next to the name of a line
UNCHANGED_MODES = ("RGB", "L")
MAX_CLASSES = 30  # listed; of more, the smallest and largest ones
NUM_EXTREMES = 5
MAX_NAMES = 5  # of files listed for a reason
MAX_CLASS_NAME = 40  # characters


def render_summary(catalog: Catalog, headers: Sequence[Header], suggestion: Suggestion | None) -> str:
    """Describe the images of a catalog, given their `headers`, and what it leaves out. Empty for an empty source."""
    lines = [*_render_classes(catalog, len(headers)), *_render_headers(headers)]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in catalog.ignored.items():
        by_reason[reason].append(printable(name))
    for reason, names in sorted(by_reason.items()):
        listed = f": {', '.join(sorted(names))}" if len(names) <= MAX_NAMES else ""
        lines += _line("left out", f"{len(names):,} {reason}{listed}")
    if suggestion:
        lines += _render_suggestion(catalog, headers, suggestion)
    return "\n".join(lines)


def _render_classes(catalog: Catalog, num_readable: int) -> Iterator[str]:
    if not any(catalog.names.values()):
        return
    by_split = ", ".join(f"{len(names):,} {split}" for split, names in catalog.names.items())
    num_images, num_classes = sum(map(len, catalog.names.values())), len(catalog.classes)
    classes = "1 class" if num_classes == 1 else f"{num_classes:,} classes"
    yield from _line("images", f"{num_images:,} in {classes}: {by_split}")
    if num_readable < num_images:
        yield from _line("", f"{num_images - num_readable:,} of them can't be read")
    counts = np.array([np.bincount(labels, minlength=num_classes) for labels in catalog.labels.values()])
    totals = counts.sum(axis=0)
    shown = [*range(num_classes)]
    if num_classes > MAX_CLASSES:
        order = np.argsort(totals, kind="stable").tolist()
        shown = [*order[:NUM_EXTREMES], *order[-NUM_EXTREMES:]]
        yield from _line("classes", f"the {NUM_EXTREMES} smallest and the {NUM_EXTREMES} largest of {num_classes:,}:")
    names = [printable(catalog.classes[index], MAX_CLASS_NAME) for index in shown]
    width = max(INDENT - 2, *map(len, names))
    yield f"  {'':{width}}" + "".join(f"{split:>10}" for split in catalog.names)
    for name, index in zip(names, shown, strict=True):
        yield f"  {name:{width}}" + "".join(f"{count:10,}" for count in counts[:, index].tolist())


def _render_headers(headers: Sequence[Header]) -> Iterator[str]:
    if not headers:
        return
    yield f"{'pixels':{INDENT}}" + "".join(f"{name:>10}" for name in ("min", "median", "max"))
    for name, sides in (
        ("width", [header.width for header in headers]),
        ("height", [header.height for header in headers]),
        ("short side", [short_side(header) for header in headers]),
    ):
        yield f"  {name:{INDENT - 2}}" + "".join(f"{side:10,}" for side in (min(sides), median_low(sides), max(sides)))
    yield from _line("formats", count_equal(header.format for header in headers))
    if converted := count_equal(header.mode for header in headers if header.mode not in UNCHANGED_MODES):
        yield from _line("converted", f"from Pillow's modes: {converted}")


def _render_suggestion(catalog: Catalog, headers: Sequence[Header], suggestion: Suggestion) -> Iterator[str]:
    num_bytes = len(headers) * prod(suggestion.image_shape) * np.dtype(suggestion.dtype).itemsize
    shape = "x".join(map(str, suggestion.image_shape))
    result = f"{len(headers):,} images of {shape} {suggestion.dtype}, {num_bytes / 1e6:,.0f} MB, with these params:"
    yield from _line("suggested", result)
    yield f"  images.size: {suggestion.size}"
    yield f"  images.resize: {'null' if suggestion.resize is None else suggestion.resize}"
    yield f"  normalize.dtype: {suggestion.dtype}"
    yield f"  normalize.samples_per_shard: {suggestion.samples_per_shard}"
    if enlarged := sum(short_side(header) < (suggestion.resize or 0) for header in headers):
        small = sum(short_side(header) < suggestion.size for header in headers)
        yield from _line(
            "enlarged",
            f"{enlarged:,} images, whose short side is below {suggestion.resize}; {small:,} of them below "
            f"{suggestion.size}",
        )
    if "test" not in catalog.names:
        yield from _line("no test", "images.test_fraction in params.yaml makes a split test of a part of train.")
    yield from _line(
        "note", "Only headers were read. `download` decodes every image, and lists those that are damaged."
    )


def _line(name: str, text: str) -> list[str]:
    parts = wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return [f"{name if number == 0 else '':{INDENT}}{part}" for number, part in enumerate(parts)]
