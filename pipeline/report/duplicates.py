"""What the report found about duplicates: leaks, twins, pairs with different labels, equal images."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.audit.details import Details
from pipeline.audit.lists import ListedPair
from pipeline.report.finding import EXAMPLES, NAMED, Examples, Finding
from pipeline.report.galleries import images_of
from pipeline.report.pictures import Image
from pipeline.report.wording import agreeing, counted, share
from shardset.manifest import Split

# By eye, all 192 pairs of CIFAR-10 that were looked at within this distance were near-duplicates, and fewer beyond it.
# It is one of the distances that details.json has counts for.
CLOSE = 0.2


def find_leaks(details: Details, pairs: Sequence[ListedPair], dataset: str) -> Iterator[Finding]:
    """Say how many images of each split other than train have a near-duplicate in train."""
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
        num_close = _count_close(details, split, "train")
        kept = f"data/audit/{split}_without_leaks.csv"
        published = " A published list, of closer pairs, has 286." if (dataset, split) == ("cifar10", "test") else ""
        yield Finding(
            "look" if num_close else "note",
            f"{_part(of.leaked, of.samples, split)} {_have(of.leaked, num_close, 'a near-duplicate in train')}",
            (
                "A model may have memorised the answer. Look at the least similar pairs first, then also report the "
                f"accuracy on {kept}.{published}"
                if num_close
                else f"Look at the pairs before using {kept}."
            ),
            "pairs",
            _most_similar(of for of in pairs if of.is_leak and of.pair.split == split),
        )


def find_conflicts(details: Details, pairs: Sequence[ListedPair]) -> Iterator[Finding]:
    """Say which near-duplicates have different labels."""
    if not details.label_conflicts:
        if pairs:
            yield Finding("good", "All near-duplicates have equal labels.", _left_out(details), "pairs")
        return
    conflicts = sorted((of for of in pairs if of.is_conflict), key=lambda of: of.pair.distance)
    named = [" and ".join(map(_named, (of.label, of.other_label), images_of(of))) for of in conflicts[:NAMED]]
    have = agreeing(details.label_conflicts, "has", "have")
    yield Finding(
        "look" if conflicts[0].pair.distance <= CLOSE else "note",
        f"{counted(details.label_conflicts, 'pair')} of near-duplicates {have} different labels.",
        f"One label is wrong, or the images only look alike: {', '.join(named)}"
        + (", and others." if details.label_conflicts > NAMED else "."),
        "conflict",
        _most_similar(conflicts),
    )


def find_twins(details: Details, pairs: Sequence[ListedPair]) -> Iterator[Finding]:
    """Say how many images of each split have an earlier near-duplicate in the same split."""
    with_twins = [(split, of) for split, of in details.splits.items() if of.twins]
    for split, of in with_twins:
        num_close = _count_close(details, split, split)
        what = f"an earlier near-duplicate in {split}"
        kept = "data/audit/train_without_twins.csv"
        in_train = (
            f"They count several times in training, and leak if a validation set is split off. {kept} leaves them out."
            if num_close
            else f"Look at the pairs before using {kept}."
        )
        if_close = "Each" if num_close else "If they do, each"
        yield Finding(
            "look" if split == "train" and num_close else "note",
            f"{_part(of.twins, of.samples, split)} {_have(of.twins, num_close, what)}",
            in_train if split == "train" else f"{if_close} counts in the accuracy, although they are not independent.",
            "pairs",
            _most_similar(of for of in pairs if of.is_twin and of.pair.split == split),
        )
    if details.searched and not with_twins:
        yield Finding("good", "No split has near-duplicates within itself.", "", "pairs")


def find_exact_duplicates(details: Details) -> Finding:
    """Say which images are equal."""
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


def _count_close(details: Details, split: Split, other_split: Split) -> int:
    """Count the images of `split` with a close near-duplicate in `other_split`."""
    kind = split, other_split, CLOSE
    return next(band.images for band in details.bands if (band.split, band.other_split, band.distance) == kind)


def _have(number: int, num_close: int, what: str) -> str:
    """Say that so many images have near-duplicates, of which some, all or none are close."""
    have = agreeing(number, "has", "have")
    if not num_close:
        return f"may have {what}, but not a close one."
    if num_close == number:
        return f"{have} a close {what.partition(' ')[2]}."
    return f"{have} {what}, {num_close:,} of them a close one."


def _left_out(details: Details) -> str:
    if not details.ignored:
        return ""
    differing = f", {details.ignored_conflicts:,} of them with different labels," if details.ignored_conflicts else ""
    judged = f"{counted(details.ignored, 'pair')} that people judged not to be duplicates"
    return f"{judged}{differing} {agreeing(details.ignored, 'is', 'are')} left out."


def _most_similar(pairs: Iterable[ListedPair]) -> Examples:
    """Choose the most similar pair of each of a few clusters."""
    by_cluster: dict[int, ListedPair] = {}
    for of in sorted(pairs, key=lambda of: of.pair.distance):
        by_cluster.setdefault(of.cluster, of)
    return tuple(images_of(of) for of in [*by_cluster.values()][:EXAMPLES])


def _part(number: int, total: int, split: Split) -> str:
    return f"{number:,} of {total:,} {split} images ({share(number, total)})"


def _named(label: str, image: Image) -> str:
    return f"{label} ({image[0]} {image[1]})"
