"""The figures of the report as tables, which `dvc plots` draws, and as metrics."""

from collections.abc import Iterator, Mapping, Sequence
from math import fsum, sqrt

import numpy as np
from numpy.typing import ArrayLike

from pipeline.audit.details import HISTOGRAM_LIMITS, SplitDetails
from pipeline.report.proof import ValueFigures
from shardset.manifest import Manifest, Split
from shardset.reader import Array

DECIMALS = 6  # of shares in the tables, and of metrics

Row = tuple[object, ...]


def make_tables(table: Array, splits: Mapping[Split, SplitDetails]) -> dict[str, list[Row]]:
    """Make the rows of each CSV file by its name, the header first. Shares are in percent.

    Splits and channels are in rows, not in columns, so that dvc.yaml has to name neither. `table`, (C, 256), is what
    pixel values become by normalizing.
    """
    return {"pixels": [*_pixel_rows(table, splits)], "histograms": [*_histogram_rows(splits)]}


def make_metrics(manifest: Manifest, figures: Mapping[Split, Mapping[str, ValueFigures]]) -> dict[str, object]:
    """Collect the figures of metrics.json: normalized values over all channels, and the size of the shards.

    They are columns of `dvc exp show`, so they are few.
    """
    metrics: dict[str, object] = {}
    for split, of_split in figures.items():
        channels = [*of_split.values()]
        mean = fsum(of.mean for of in channels) / len(channels)
        variance = fsum(of.std**2 + (of.mean - mean) ** 2 for of in channels) / len(channels)
        extremes = {"min": min(of.min for of in channels), "max": max(of.max for of in channels)}
        shown = {"mean": mean, "std": sqrt(variance)} | (extremes if split == "train" else {})
        metrics[split] = {name: round(value, DECIMALS) + 0.0 for name, value in shown.items()}  # never -0.0
    return metrics | {"shards_mb": round(manifest.num_bytes / 1e6, 1)}


def percent(counts: ArrayLike) -> Array:
    """Turn counts into shares of their sum, in percent."""
    shares: Array = 100 * np.asarray(counts) / np.sum(counts)
    return shares


def _pixel_rows(table: Array, splits: Mapping[Split, SplitDetails]) -> Iterator[Row]:
    yield "split", "channel", "pixel", "value", "percent"
    for split, of_split in splits.items():
        for (channel, counts), values in zip(of_split.pixel_counts.items(), table, strict=True):
            for pixel, (value, share) in enumerate(zip(values, _shares(counts), strict=True)):
                yield split, channel, pixel, float(str(value)), share


def _histogram_rows(splits: Mapping[Split, SplitDetails]) -> Iterator[Row]:
    yield "split", *(column for name in HISTOGRAM_LIMITS for column in (name, f"{name}_percent"))
    for split, of_split in splits.items():
        columns: list[Sequence[float]] = []
        for name, limit in HISTOGRAM_LIMITS.items():
            counts = of_split.histograms[name]
            columns += [
                [round((index + 0.5) * limit / len(counts), 3) for index in range(len(counts))],
                _shares(counts),
            ]
        for row in zip(*columns, strict=True):
            yield split, *row


def _shares(counts: Sequence[int]) -> list[float]:
    shares: list[float] = np.round(percent(counts), DECIMALS).tolist()
    return shares
