"""What the report found, in the order in which readers need it: a sentence each, and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from pipeline.audit.details import Details, Oddity
from pipeline.audit.lists import ListedPair
from pipeline.report.balance import balance_sentence, shifted_classes, unbalanced_splits
from pipeline.report.duplicates import find_conflicts, find_exact_duplicates, find_leaks, find_twins
from pipeline.report.finding import EXAMPLES, NAMED, Finding
from pipeline.report.proof import ValueFigures
from pipeline.report.wording import agreeing, counted, megabytes, share
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of

MARKS = ("look", "note", "good")  # in the order of the report

Normalized = Mapping[Split, Mapping[str, ValueFigures]]


def find_findings(
    manifest: Manifest, details: Details, pairs: Sequence[ListedPair], normalized: Normalized
) -> list[Finding]:
    """List what to know about a normalized shard set whose bytes and values were verified, what needs a look first."""
    findings = [
        _proven(manifest),
        _distribution(manifest, normalized),
        *find_leaks(details, pairs, manifest.dataset),
        *find_conflicts(details, pairs),
        *find_twins(details, pairs),
        find_exact_duplicates(details),
        *_balance(details),
        *_oddities(details),
        *_skipped(manifest),
    ]
    return sorted(findings, key=lambda of: MARKS.index(of.mark))


def raw_bytes(manifest: Manifest) -> int:
    """Compute the size of the pixels and labels that a set was normalized from."""
    return manifest.num_samples * (prod(manifest.image_shape) + 8)


def _proven(manifest: Manifest) -> Finding:
    num_values = manifest.num_samples * prod(manifest.image_shape)
    rule = "their pixel" if manifest.dtype == "uint8" else "(v / 255 - mean) / std of their pixel"
    return Finding(
        "good",
        "The files are intact: every byte and every value was verified.",
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
            f"{split}: {', '.join(f'{of.name} {of.count:,}' for of in of_split)}" for split, of_split in found.items()
        ]
        first = [of for of_split in found.values() for of in of_split][: 2 * EXAMPLES]
        yield Finding(
            "note",
            f"Some images stand out: {', '.join(names)}.",
            f"Check that they are what you expect. {'; '.join(counts)}.",
            "oddities",
            tuple(((of.split, of.indices[0]),) for of in first),
        )


def _skipped(manifest: Manifest) -> Iterator[Finding]:
    if manifest.skipped:
        were = agreeing(manifest.skipped, "was", "were")
        text = f"{counted(manifest.skipped, 'image file')} could not be read and {were} skipped."
        yield Finding("look", text, "data/raw/skipped.csv gives the reasons.", "classes")
