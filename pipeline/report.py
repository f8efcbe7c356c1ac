"""Stage `report`: what the data is and what normalizing did, read back from the shards on disk."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.duplicates import (
    MAX_DISTANCE,
    NUM_CANDIDATES,
    ExactDuplicates,
    NearDuplicate,
    count_exact_duplicates,
    find_near_duplicates,
)
from pipeline.errors import CorruptDataError
from pipeline.files import write_json, write_text
from pipeline.manifest import SPLITS, Split
from pipeline.normalize import normalization_of
from pipeline.shards import ShardSet, open_raw, verify_shards
from pipeline.survey import NUM_BINS, REMEDY, SplitFigures, Survey, survey_split, value_table

if TYPE_CHECKING:
    from pipeline.params import ReportParams

DISTANCES = (0.1, 0.2, 0.3, MAX_DISTANCE)


@dataclass(frozen=True)
class Band:
    """How many near duplicates lie within a distance, how many test images have one, and how often labels differ."""

    distance: float
    pairs: int
    tests: int
    other_class: int


def write_report(
    raw_dir: Path, shards_dir: Path, report_dir: Path, params: "ReportParams"
) -> dict[Split, SplitFigures]:
    """Verify both shard sets, survey them, look for duplicates, and write the page, the text, and tables of figures.

    Raises CorruptDataError where a byte differs from the manifests, a value from the formula, a mean or std that should
    be the train split's from that, or, with scheme `dataset`, the normalized train split from mean 0 and std 1.
    """
    raw = open_raw(raw_dir)
    raw.verify()
    raw.verify_content()
    shards = verify_shards(shards_dir)
    if raw.manifest.content_sha256 != shards.manifest.content_sha256 or shards.manifest.normalization is None:
        raise CorruptDataError(f"{shards_dir} was not made from {raw_dir} by normalize: {REMEDY}")
    surveys = {split: survey_split(raw, shards, split) for split in SPLITS}
    figures = {split: survey.figures for split, survey in surveys.items()}
    check_statistics(shards, figures["train"])
    check_unit_variance(shards, figures["train"])
    exact, near = count_exact_duplicates(raw), find_near_duplicates(raw)
    bands = count_by_distance(raw, near)
    facts = {
        "manifest": shards.manifest,
        "figures": figures,
        "exact": exact,
        "bands": bands,
        "candidates": NUM_CANDIDATES,
    }
    extremes = {split: survey.extremes() for split, survey in surveys.items()}
    page = _render("report.html", params, **facts, **_draw(raw, shards, surveys, near))
    text = _render("report.md", params, **facts, extremes=extremes)
    for was_read in (raw, shards):
        was_read.expect_same()
    write_text(report_dir / "report.html", page)
    write_text(report_dir / "report.md", text)
    write_json(report_dir / "metrics.json", _metrics(figures, exact, bands[-1]))
    for name, rows in _tables(shards, surveys, near).items():
        write_text(report_dir / f"{name}.csv", _csv(rows))
    return figures


def check_statistics(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError unless the mean and std of schemes that take them from the train split are its own."""
    normalization = normalization_of(shards.manifest)
    if normalization.scheme not in ("dataset", "dataset_per_image"):
        return
    name = "std" if normalization.scheme == "dataset" else "std_per_image"
    measured = tuple(tuple(getattr(it, key) for it in train.before.values()) for key in ("mean", name))
    if measured != (normalization.mean, normalization.std):
        raise CorruptDataError(
            f"{shards.dir}: expected mean and std {measured} of the train split, got {normalization.mean} and "
            f"{normalization.std}: data/stats.json was not that of this data: run `dvc repro --force stats`"
        )


def check_unit_variance(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError unless scheme `dataset` gave the train split mean 0 and std 1, but for rounding."""
    if normalization_of(shards.manifest).scheme != "dataset":
        return
    # Each value is off by a few roundings of numbers no larger than the largest value.
    largest = float(np.abs(value_table(shards)).max())
    epsilon = float(np.finfo(np.float16 if shards.manifest.dtype == "float16" else np.float32).eps)
    tolerance = 4 * epsilon * max(1.0, largest)
    for channel, figures in train.after.items():
        if abs(figures.mean) > tolerance or abs(figures.std - 1) > tolerance:
            raise CorruptDataError(
                f"{shards.dir}: expected the normalized train split to have mean 0 and std 1 within {tolerance:.1e}, "
                f"got mean {figures.mean:.3e} and std {figures.std:.9f} in channel {channel}: "
                "data/stats.json is not that of this data: run `dvc repro --force stats`"
            )


def count_by_distance(raw: ShardSet, near: list[NearDuplicate]) -> list[Band]:
    """Count near duplicates, (test, train) pairs, within each of DISTANCES."""
    labels = {split: raw.labels(split) for split in SPLITS}
    bands = []
    for distance in DISTANCES:
        within = [pair for pair in near if pair.distance <= distance]
        others = sum(bool(labels["test"][pair.test] != labels["train"][pair.train]) for pair in within)
        bands.append(Band(distance, len(within), len({pair.test for pair in within}), others))
    return bands


def _metrics(figures: dict[Split, SplitFigures], exact: ExactDuplicates, near: Band) -> dict[str, object]:
    near_figures = {"pairs": near.pairs, "test_images": near.tests, "pairs_of_other_class": near.other_class}
    by_split: dict[str, object] = {split: asdict(figures[split]) for split in SPLITS}
    return by_split | {"duplicates": {"exact": asdict(exact), "near": near_figures}}


def _tables(
    shards: ShardSet, surveys: dict[Split, Survey], near: list[NearDuplicate]
) -> dict[str, Iterable[tuple[object, ...]]]:
    """Make the rows of each CSV file, by its name, names of columns first; shares are in percent."""
    from pipeline.pictures import percent

    table, channels = value_table(shards), shards.manifest.channels
    pixels: dict[str, Iterable[object]] = {"pixel": range(256)}
    for index, channel in enumerate(channels):
        pixels[f"{channel}_value"] = [float(str(value)) for value in table[index]]
        pixels |= {f"{channel}_{split}": percent(of.pixel_counts[index]).tolist() for split, of in surveys.items()}
    pixels |= {f"all_{split}": percent(of.pixel_counts.sum(axis=0)).tolist() for split, of in surveys.items()}
    images: dict[str, Iterable[object]] = {}
    for name, limit in (("brightness", 1), ("contrast", 0.5)):
        images[name] = [round((index + 0.5) * limit / NUM_BINS, 3) for index in range(NUM_BINS)]
        images |= {f"{name}_{split}": percent(of.histograms()[name]).tolist() for split, of in surveys.items()}
    classes: dict[str, Iterable[object]] = {"class": shards.manifest.classes}
    classes |= {split: of.figures.classes.values() for split, of in surveys.items()}
    return {
        **{
            name: [tuple(columns), *zip(*columns.values(), strict=True)]
            for name, columns in (("pixels", pixels), ("images", images), ("classes", classes))
        },
        "near_duplicates": [("test", "train", "distance"), *((it.test, it.train, it.distance) for it in near)],
    }


def _csv(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _draw(
    raw: ShardSet, shards: ShardSet, surveys: dict[Split, Survey], near: list[NearDuplicate]
) -> dict[str, object]:
    from pipeline import pictures

    table = value_table(shards)
    closest, farthest = pictures.closest_and_farthest(near)
    return {
        "samples": pictures.draw_samples(raw, table),
        "means": pictures.draw_means(surveys["train"]),
        "channel_plots": pictures.plot_channels(surveys, shards.manifest.channels, table),
        "class_plot": pictures.plot_classes(surveys),
        "image_plots": pictures.plot_images(surveys),
        "extremes": {split: pictures.draw_extremes(raw, survey, split) for split, survey in surveys.items()},
        "pairs": {"closest": pictures.draw_pairs(raw, closest), "farthest": pictures.draw_pairs(raw, farthest)},
    }


def _render(name: str, params: "ReportParams", **facts: object) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    def number(value: float) -> str:
        # Without "-0.0000", which would say that a sign survived the rounding.
        return f"{round(value, params.decimals) + 0.0:.{params.decimals}f}"

    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "count": "{:,}".format}
    return environment.get_template(f"{name}.j2").render(**facts)
