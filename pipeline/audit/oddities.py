"""Images that stand out, and why."""

from collections.abc import Mapping

import numpy as np

from pipeline.audit.details import Oddity
from pipeline.audit.pairs import Indices
from pipeline.audit.survey import Floats, Survey
from shardset.manifest import Split

NUM_LISTED = 16  # images of each kind
MIN_CLIPPED = 0.25  # share of values
MIN_BORDER = 0.25  # share of the area
MAX_ENTROPY = 4.0  # bits
BORDER_RULE = f"rows or columns of one colour at opposite edges take {MIN_BORDER:.0%} or more of the image"
ENTROPY_RULE = f"the grey values have an entropy of at most {MAX_ENTROPY:g} bits"


def find_oddities(surveys: Mapping[Split, Survey]) -> tuple[Oddity, ...]:
    """List the images of each split that stand out, by reason, the most extreme first. Ties go to the lower index."""
    return tuple(oddity for split, survey in surveys.items() for oddity in _find_in_split(split, survey))


def _find_in_split(split: Split, survey: Survey) -> list[Oddity]:
    brightness, contrast, clipped = survey.brightness, survey.contrast, survey.clipped_shares
    borders, entropies = survey.borders, survey.entropies
    # name, rule, which images meet it (None for a ranking of all), measure, 1 if the lowest stands out most
    kinds = (
        ("grey", "all channels are equal in every pixel", survey.grey & ~survey.grey.all(), contrast, -1),
        ("clipped", f"{MIN_CLIPPED:.0%} or more of the values are 0 or 255", clipped >= MIN_CLIPPED, clipped, -1),
        ("plain borders", BORDER_RULE, borders >= MIN_BORDER, borders, -1),
        ("low entropy", ENTROPY_RULE, entropies <= MAX_ENTROPY, entropies, 1),
        ("darkest", "lowest mean of all values", None, brightness, 1),
        ("brightest", "highest mean of all values", None, brightness, -1),
        ("lowest contrast", "lowest std of all values", None, contrast, 1),
        ("highest contrast", "highest std of all values", None, contrast, -1),
    )
    oddities = []
    for name, rule, meets, measure, sign in kinds:
        chosen = np.arange(len(measure)) if meets is None else np.flatnonzero(meets)
        if len(chosen):
            first = chosen[_find_lowest(sign * measure[chosen])]
            oddities.append(
                Oddity(
                    name=name,
                    split=split,
                    count=None if meets is None else len(chosen),
                    rule=rule,
                    indices=tuple(first.tolist()),
                    values=tuple(round(value, 4) for value in measure[first].tolist()),
                )
            )
    return oddities


def _find_lowest(values: Floats) -> Indices:
    """Return the places of the NUM_LISTED lowest values, in their order. Ties go to the lower place."""
    last = min(NUM_LISTED, len(values)) - 1
    lowest = np.flatnonzero(values <= np.partition(values, last)[last])  # takes less memory than to sort them all
    return lowest[np.argsort(values[lowest], kind="stable")[: last + 1]]
