"""The report as a page and as text, rendered from templates."""

import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pipeline.audit.near_duplicates import NUM_CANDIDATES, NearDuplicate
from pipeline.audit.survey import Survey
from pipeline.report.pictures import closest_and_farthest, draw_extremes, draw_means, draw_pairs, draw_samples
from pipeline.report.plots import plot_channels, plot_classes, plot_images
from pipeline.report.tables import Band
from shardset.manifest import Manifest, Split
from shardset.reader import Array
from shardset.shards import ShardSet

# Underscores within a word are only themselves.
MARKDOWN_SYNTAX = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")


def render_page(
    raw: ShardSet,
    table: Array,
    surveys: Mapping[Split, Survey],
    near: list[NearDuplicate],
    facts: Mapping[str, object],
    decimals: int,
) -> str:
    """Render report.html; `facts` as from `collect_facts`, `table`, (C, 256), is what pixel values become."""
    closest, farthest = closest_and_farthest(near)
    return _render(
        "report.html",
        decimals,
        **facts,
        samples=draw_samples(raw, table),
        means=draw_means(surveys["train"]),
        channel_plots=plot_channels(surveys, raw.manifest.channels, table),
        class_plot=plot_classes(surveys),
        image_plots=plot_images(surveys),
        extremes={split: draw_extremes(raw, survey, split) for split, survey in surveys.items()},
        pairs={"closest": draw_pairs(raw, closest), "farthest": draw_pairs(raw, farthest)},
    )


def render_text(surveys: Mapping[Split, Survey], facts: Mapping[str, object], decimals: int) -> str:
    """Render report.md; `facts` as from `collect_facts`."""
    extremes = {split: survey.extremes() for split, survey in surveys.items()}
    return _render("report.md", decimals, **facts, extremes=extremes)


def collect_facts(
    manifest: Manifest, surveys: Mapping[Split, Survey], exact: dict[str, int], bands: list[Band]
) -> dict[str, object]:
    """Collect what both templates show."""
    return {
        "manifest": manifest,
        "figures": {split: survey.figures for split, survey in surveys.items()},
        "exact": exact,
        "bands": bands,
        "candidates": NUM_CANDIDATES,
    }


def escape_markdown(name: str) -> str:
    """Escape a name for report.md, where it may be in a table."""
    return MARKDOWN_SYNTAX.sub(r"\\\g<0>", name)


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
    environment.filters |= {"number": number, "count": "{:,}".format, "markdown": escape_markdown}
    return environment.get_template(f"{name}.j2").render(**facts)
