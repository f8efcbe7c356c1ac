"""What the page shows pictures of: the images chosen, and how large they can be drawn."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from pipeline.audit.details import Details, Oddity
from pipeline.audit.lists import ListedPair
from pipeline.report.pictures import Image, thumbnail_bytes
from shardset.manifest import Split
from shardset.shards import ShardSet

PICTURE_BYTES = 4_300_000  # of the page's 5 MB
SIDES = (96, 80, 64, 48)  # pixels of a thumbnail, the largest that leaves room for FEW_PAIRS
MOST_PAIRS, FEW_PAIRS = 240, 24
ENDS = 6  # most similar pairs, and least similar, that are shown at once
SAMPLES, SAMPLES_PER_CLASS = 60, 6
CLUSTERS, CLUSTER_IMAGES = 8, 8
MIN_CLUSTER = 3  # images; two are a pair
KINDS = ("conflict", "leak", "twin", "other")
ODD_IMAGES = 10  # of each kind, over all splits


# How the measure of an oddity is written, by its name.
MEASURES = {
    "grey": "contrast {:.3f}",
    "clipped": "clipped {:.0%}",
    "plain borders": "plain {:.0%}",
    "low entropy": "entropy {:.1f} bits",
    "darkest": "brightness {:.3f}",
    "brightest": "brightness {:.3f}",
    "lowest contrast": "contrast {:.3f}",
    "highest contrast": "contrast {:.3f}",
}


@dataclass(frozen=True)
class PairGallery:
    """Pairs of one kind, the most similar first. `total` counts those that have no room, too."""

    name: str
    title: str
    total: int
    pairs: list[ListedPair]


@dataclass(frozen=True)
class Cluster:
    """Images connected by pairs; `images` are the first few. `labels` counts all by class name."""

    size: int
    labels: dict[str, int]
    images: list[Image]


@dataclass(frozen=True)
class OddityGallery:
    """Images that stand out for one reason, with their measure. `counts` has those that meet the rule by split."""

    name: str
    rule: str
    counts: dict[Split, int]
    images: list[tuple[Image, float]]


@dataclass(frozen=True)
class Galleries:
    """All images to draw, and the side of a thumbnail in pixels. `samples` has train images by class name."""

    side: int
    samples: dict[str, list[Image]]
    pairs: list[PairGallery]
    clusters: list[Cluster]
    oddities: list[OddityGallery]

    def images(self) -> Iterator[Image]:
        """List all images, some of them several times."""
        for of_class in self.samples.values():
            yield from of_class
        for gallery in self.pairs:
            for of in gallery.pairs:
                yield from images_of(of)
        for cluster in self.clusters:
            yield from cluster.images
        for oddity in self.oddities:
            yield from (image for image, _ in oddity.images)


def images_of(of: ListedPair) -> tuple[Image, Image]:
    """Return the two images of a pair, the later one first."""
    return (of.pair.split, of.pair.index), (of.pair.other_split, of.pair.other_index)


def choose_images(raw: ShardSet, details: Details, pairs: Sequence[ListedPair], num_others: int) -> Galleries:
    """Choose the images to draw, so that with `num_others` more the page stays under 5 MB whatever the set."""
    samples, clusters, oddities = choose_samples(raw), choose_clusters(pairs), choose_oddities(details)
    fixed = Galleries(side=0, samples=samples, pairs=[], clusters=clusters, oddities=oddities)
    side, num_pairs = fit_pairs(raw.manifest.image_shape, num_others + sum(1 for _ in fixed.images()), len(pairs))
    return Galleries(side, samples, choose_pairs(pairs, num_pairs), clusters, oddities)


def fit_pairs(image_shape: Sequence[int], num_fixed: int, num_pairs: int) -> tuple[int, int]:
    """Choose the side of a thumbnail in pixels, and how many pairs there is room for with `num_fixed` other images."""
    for side in SIDES:
        room = (PICTURE_BYTES // thumbnail_bytes(image_shape, side) - num_fixed) // 2
        if room >= min(num_pairs, FEW_PAIRS):
            break
    return side, min(max(room, 0), num_pairs, MOST_PAIRS)


def choose_samples(raw: ShardSet) -> dict[str, list[Image]]:
    """Choose the first train images of each class, for as many classes as there is room."""
    labels = raw.labels("train")
    classes = raw.manifest.classes[:SAMPLES]
    most = min(SAMPLES_PER_CLASS, SAMPLES // len(classes))
    chosen = {name: np.flatnonzero(labels == label)[:most].tolist() for label, name in enumerate(classes)}
    return {name: [("train", index) for index in of_class] for name, of_class in chosen.items() if of_class}


def choose_pairs(pairs: Sequence[ListedPair], most: int) -> list[PairGallery]:
    """Choose at most `most` pairs, the most and the least similar of each kind; different labels are a kind."""
    by_kind: dict[tuple[str, str], list[ListedPair]] = {_gallery_of(of): [] for of in pairs}
    for of in sorted(pairs, key=lambda of: of.pair.distance):
        by_kind[_gallery_of(of)].append(of)
    galleries = []
    order = sorted(by_kind, key=lambda kind: KINDS.index(kind[0]))
    # The smallest comes first, so that the room that it leaves goes to the others.
    for number, kind in enumerate(sorted(order, key=lambda kind: len(by_kind[kind]))):
        chosen = _ends(by_kind[kind], ceil(most / (len(order) - number)))
        most -= len(chosen)
        galleries.append(PairGallery(*kind, total=len(by_kind[kind]), pairs=chosen))
    return sorted(galleries, key=lambda gallery: order.index((gallery.name, gallery.title)))


def choose_clusters(pairs: Sequence[ListedPair]) -> list[Cluster]:
    """Choose the largest clusters of three images or more."""
    members: dict[int, dict[Image, str]] = defaultdict(dict)
    for of in pairs:
        members[of.cluster] |= dict(zip(images_of(of), (of.label, of.other_label), strict=True))
    largest = sorted((of for of in members.values() if len(of) >= MIN_CLUSTER), key=len, reverse=True)[:CLUSTERS]
    return [Cluster(len(of), dict(Counter(of.values()).most_common()), [*of][:CLUSTER_IMAGES]) for of in largest]


def choose_oddities(details: Details) -> list[OddityGallery]:
    """Choose the first images of each kind of oddity, of all splits; rankings come last."""
    most = ODD_IMAGES // len(details.splits)
    by_name: dict[str, list[Oddity]] = defaultdict(list)
    for oddity in sorted(details.oddities, key=lambda of: of.count is None):
        by_name[oddity.name].append(oddity)
    return [
        OddityGallery(
            name,
            of_name[0].rule,
            {of.split: of.count for of in of_name if of.count is not None},
            [
                ((of.split, index), value)
                for of in of_name
                for index, value in zip(of.indices[:most], of.values[:most], strict=True)
            ],
        )
        for name, of_name in by_name.items()
    ]


def kind_of(split: Split, other_split: Split) -> tuple[str, str]:
    """Name the kind of the pairs of two splits: one of KINDS, and a title."""
    if split == other_split:
        return "twin", f"Near-duplicates within {split}"
    kind = "leak" if other_split == "train" else "other"
    return kind, f"{split.capitalize()} images with a near-duplicate in {other_split}"


def _gallery_of(of: ListedPair) -> tuple[str, str]:
    return (
        ("conflict", "Pairs with different labels") if of.is_conflict else kind_of(of.pair.split, of.pair.other_split)
    )


def _ends(ordered: list[ListedPair], most: int) -> list[ListedPair]:
    """Choose the most and the least similar pairs, of each cluster in turn, so that one large cluster isn't all."""
    if len(ordered) <= most:
        return ordered
    first = _by_turns(ordered)[: (most + 1) // 2]
    shown = set(first)
    last = _by_turns([of for of in reversed(ordered) if of not in shown])[: most // 2]
    return sorted(first + last, key=lambda of: of.pair.distance)


def _by_turns(pairs: list[ListedPair]) -> list[ListedPair]:
    seen: Counter[int] = Counter()
    turns = []
    for of in pairs:
        turns.append(seen[of.cluster])
        seen[of.cluster] += 1
    return [of for _, of in sorted(zip(turns, pairs, strict=True), key=lambda item: item[0])]
