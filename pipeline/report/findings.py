"""What the report found, in the order in which readers need it: a sentence each, and what to do about it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from pipeline.audit.details import Details, Oddity
from pipeline.audit.lists import ListedPair
from pipeline.report.balance import balance_sentence, shifted_classes, unbalanced_splits
from pipeline.report.galleries import images_of
from pipeline.report.pictures import Image
from pipeline.report.proof import ValueFigures
from pipeline.report.wording import agreeing, counted, megabytes, share
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of

NAMED = 3  # names in a sentence
EXAMPLES = 3  # pictures of a finding

Examples = tuple[tuple[Image, ...], ...]  # images, or pairs of images
Normalized = Mapping[Split, Mapping[str, ValueFigures]]


@dataclass(frozen=True)
class Finding:
    """A sentence, what it means or what to do, the section of the page that shows it, and images to show at once."""

    mark: Literal["good", "look", "note"]
    text: str
    advice: str
    section: str
    examples: Examples = ()


def find_findings(
    manifest: Manifest, details: Details, pairs: Sequence[ListedPair], normalized: Normalized
) -> list[Finding]:
    """List what to know about a normalized shard set whose bytes and values were verified."""
    return [
        _proven(manifest),
        _distribution(manifest, normalized),
        *_leaks(details, pairs),
        *_conflicts(details, pairs),
        *_twins(details, pairs),
        _exact_duplicates(details),
        *_balance(details),
        *_oddities(details),
        *_skipped(manifest),
    ]


def raw_bytes(manifest: Manifest) -> int:
    """Compute the size of the pixels and labels that a set was normalized from."""
    return sum(of.samples for of in manifest.splits.values()) * (prod(manifest.image_shape) + 8)


def _proven(manifest: Manifest) -> Finding:
    num_values = sum(of.samples for of in manifest.splits.values()) * prod(manifest.image_shape)
    rule = "their pixel" if manifest.dtype == "uint8" else "(v / 255 - mean) / std of their pixel"
    return Finding(
        "good",
        "Every byte and every value was verified.",
        f"{megabytes(raw_bytes(manifest))} of pixels and {megabytes(manifest.num_bytes)} of shards match their "
        f"SHA-256, and all {num_values:,} values equal {rule}, bit for bit.",
        "values",
    )


def _distribution(manifest: Manifest, normalized: Normalized) -> Finding:
    def limits(split: Split, name: str) -> str:
        values = [getattr(of, name) for of in normalized[split].values()]
        low, high = f"{min(values) + 0.0:.3f}", f"{max(values) + 0.0:.3f}"
        low, high = (text.replace("-0.000", "0.000") for text in (low, high))
        return low if low == high else f"{low} to {high}"

    others = "".join(
        f" In {split} the mean is {limits(split, 'mean')} and the std {limits(split, 'std')}."
        for split in normalized
        if split != "train"
    )
    scheme = normalization_of(manifest).scheme
    if scheme == "dataset":
        exact = "Normalized train values have mean 0 and std 1 in each channel."
        return Finding("good", exact, others.strip(), "values")
    return Finding(
        "note",
        f"Normalized train values have mean {limits('train', 'mean')} and std {limits('train', 'std')}.",
        f"Scheme {scheme} doesn't give mean 0 and std 1.{others}",
        "values",
    )


def _leaks(details: Details, pairs: Sequence[ListedPair]) -> Iterator[Finding]:
    if not details.searched:
        text = "Only exact duplicates were searched."
        yield Finding("note", text, "The images are smaller than 8 x 8 pixels.", "pairs")
    for split, of in details.splits.items():
        if split == "train":
            continue
        if not of.leaked:
            if details.searched:
                yield Finding("good", f"No {split} image has a near-duplicate in train.", "", "pairs")
            continue
        yield Finding(
            "look",
            f"{_part(of.leaked, of.samples, split)} {agreeing(of.leaked, 'has', 'have')} a near-duplicate in train.",
            "A model can answer them from memory. Some may only look alike: judge the farthest pairs, then evaluate on "
            f"data/audit/{split}_without_leaks.csv too.",
            "pairs",
            _closest(of for of in pairs if of.is_leak and of.pair.split == split),
        )


def _conflicts(details: Details, pairs: Sequence[ListedPair]) -> Iterator[Finding]:
    if not details.label_conflicts:
        if pairs:
            are = agreeing(details.ignored, "is", "are")
            differing = f", {details.ignored_conflicts:,} of them with different labels," * bool(
                details.ignored_conflicts
            )
            judged = (
                f"{counted(details.ignored, 'pair')} that people judged not to be duplicates{differing} {are} left out."
            )
            text = "All near-duplicates have equal labels."
            yield Finding("good", text, judged if details.ignored else "", "pairs")
        return
    conflicts = sorted((of for of in pairs if of.is_conflict), key=lambda of: of.pair.distance)
    named = [" and ".join(map(_named, (of.label, of.other_label), images_of(of))) for of in conflicts[:NAMED]]
    have = agreeing(details.label_conflicts, "has", "have")
    yield Finding(
        "look",
        f"{counted(details.label_conflicts, 'pair')} of near-duplicates {have} different labels.",
        f"One label is wrong, or the images only look alike: {', '.join(named)}"
        + (", and others." if details.label_conflicts > NAMED else "."),
        "conflict",
        _closest(conflicts),
    )


def _twins(details: Details, pairs: Sequence[ListedPair]) -> Iterator[Finding]:
    advice = {
        "train": "They count several times in training, and leak if a validation set is split off. "
        "data/audit/train_without_twins.csv keeps one of each.",
    }
    with_twins = [(split, of) for split, of in details.splits.items() if of.twins]
    for split, of in with_twins:
        yield Finding(
            "look" if split == "train" else "note",
            f"{_part(of.twins, of.samples, split)} {agreeing(of.twins, 'repeats', 'repeat')} an earlier {split} image.",
            advice.get(split, "They count several times in the accuracy."),
            "pairs",
            _closest(of for of in pairs if of.is_twin and of.pair.split == split),
        )
    if details.searched and not with_twins:
        yield Finding("good", "No split has near-duplicates within itself.", "", "pairs")


def _exact_duplicates(details: Details) -> Finding:
    found = []
    for split, of in details.splits.items():
        for other, number in {
            "an earlier": of.exact_duplicates,
            **{f"a {name}": n for name, n in of.exact_in.items()},
        }.items():
            if number:
                found.append(f"{counted(number, f'{split} image')} {agreeing(number, 'equals', 'equal')} {other} image")
    if found:
        return Finding("look", "Some images occur more than once, bit for bit.", f"{'; '.join(found)}.", "pairs")
    return Finding("good", "No image occurs twice, bit for bit.", "", "pairs")


def _balance(details: Details) -> Iterator[Finding]:
    for split, of in details.splits.items():
        empty = [name for name, of_class in of.classes.items() if not of_class.samples]
        if empty:
            named = ", ".join(empty[:NAMED]) + (", and others" if len(empty) > NAMED else "")
            noun = agreeing(len(empty), "class has", "classes have")
            yield Finding("look", f"{len(empty):,} {noun} no {split} image.", f"{named}.", "classes")
    unbalanced = unbalanced_splits(details)
    if unbalanced:
        where = "" if len(unbalanced) == len(details.splits) else f" in {' and '.join(unbalanced)}"
        yield Finding(
            "look" if "train" in unbalanced else "note",
            f"Classes are unbalanced{where}.",
            f"{balance_sentence(details)} Accuracy alone hides the small classes: report it by class.",
            "classes",
        )
    else:
        yield Finding("good", "Classes are balanced.", balance_sentence(details), "classes")
    shifted = shifted_classes(details)
    if shifted:
        yield Finding(
            "note",
            f"Class shares in {' and '.join(shifted)} differ from those in train.",
            " ".join(_shift(details, split, name) for split, name in shifted.items()),
            "classes",
        )


def _shift(details: Details, split: Split, name: str) -> str:
    train, other = (
        share(of.classes[name].samples, of.samples) for of in (details.splits["train"], details.splits[split])
    )
    return f"{name}: {train} of train, {other} of {split}."


def _oddities(details: Details) -> Iterator[Finding]:
    found: dict[Split, list[Oddity]] = {}
    for of in details.oddities:
        if of.count:
            found.setdefault(of.split, []).append(of)
    if found:
        names = dict.fromkeys(of.name for of_split in found.values() for of in of_split)
        counts = [
            f"{split}: {', '.join(f'{of.count:,} {of.name}' for of in of_split)}" for split, of_split in found.items()
        ]
        first = [of for of_split in found.values() for of in of_split][: 2 * EXAMPLES]
        yield Finding(
            "note",
            f"Some images stand out: {', '.join(names)}.",
            f"Check that they are what you expect. {'; '.join(counts)}.",
            "oddities",
            tuple(((of.split, of.indices[0]),) for of in first),
        )


def _closest(pairs: Iterable[ListedPair]) -> Examples:
    """Choose the closest pair of each of a few clusters."""
    by_cluster: dict[int, ListedPair] = {}
    for of in sorted(pairs, key=lambda of: of.pair.distance):
        by_cluster.setdefault(of.cluster, of)
    return tuple(images_of(of) for of in [*by_cluster.values()][:EXAMPLES])


def _skipped(manifest: Manifest) -> Iterator[Finding]:
    if manifest.skipped:
        were = agreeing(manifest.skipped, "was", "were")
        text = f"{counted(manifest.skipped, 'image file')} could not be read and {were} skipped."
        yield Finding("look", text, "data/raw/skipped.csv gives the reasons.", "classes")


def _part(number: int, total: int, split: Split) -> str:
    return f"{number:,} of {total:,} {split} images ({share(number, total)})"


def _named(label: str, image: Image) -> str:
    return f"{label} ({image[0]} {image[1]})"
