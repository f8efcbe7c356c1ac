"""Which images belong to which split and class, decided by their paths or by a metadata file. Nothing is read here.

Splits are never guessed from file names, and classes are one list over all splits.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardset.manifest import SPLITS, UNPRINTABLE, Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


@dataclass
class Layout:
    """The images of each split, by path, with their class names; images that belong to none; what is wrong."""

    splits: dict[Split, list[tuple[str, str]]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)  # the reason by path
    problems: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names, sorted by code point, as torchvision's ImageFolder does."""
        return tuple(sorted({name for of_split in self.splits.values() for _, name in of_split}))


@dataclass(frozen=True)
class MetadataRow:
    """A line of a metadata file: the path of an image, its class name, and its split, if the line names one.

    `where` is the file and line, for messages.
    """

    path: str
    label: str
    split: Split | None
    where: str


def split_of(name: str) -> Split | None:
    """Return the split that a top-level folder of this name holds, in any case, or None."""
    return SPLIT_NAMES.get(name.casefold())


def plan_by_folders(images: Iterable[str], folders: Iterable[str]) -> Layout:
    """Take splits and classes from folders: SPLIT/CLASS/... where a top-level folder is a split, else CLASS/...

    Images have the order of torchvision's ImageFolder: by class, then by folder, then by name.
    """
    layout = Layout()
    names = [*images]
    folders = {*folders}
    if names and not folders:
        layout.problems.append("all images are at the top; put them into class folders, or give the folder above them")
        return layout
    tops = sorted(name for name in folders if "/" not in name)
    split_folders = {top: split for top in tops if (split := split_of(top))}
    _check_split_folders(split_folders, tops, layout.problems)
    depth = 1 if split_folders else 0
    by_class: dict[Split, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        parts = folder.split("/")
        if len(parts) == depth + 1 and (not depth or parts[0] in split_folders):
            by_class[split_folders.get(parts[0], "train")][parts[depth]]  # also where it holds no image
    for name in names:
        parts = name.split("/")
        if depth and parts[0] not in split_folders and len(parts) > 1:
            continue  # in a folder that is a problem already
        if len(parts) < depth + 2:
            layout.problems.append(f"{name}: an image outside of a class folder; move it into one")
        else:
            by_class[split_folders.get(parts[0], "train")][parts[depth]].append(name)
    _take_classes(layout, by_class, {*split_folders.values()})
    return layout


def _take_classes(layout: Layout, by_class: Mapping[Split, Mapping[str, list[str]]], expected: set[Split]) -> None:
    for split in SPLITS:
        of_split = by_class.get(split, {})
        if split in expected or of_split:
            layout.splits[split] = [
                (name, label) for label in sorted(of_split) for name in sorted(of_split[label], key=_walk_order)
            ]
        for label in sorted(of_split):
            if not of_split[label]:
                layout.problems.append(f"{split}: class {label!r} has no images; remove the folder or add some")


def plan_by_metadata(images: Iterable[str], rows: Iterable[MetadataRow]) -> Layout:
    """Take classes, and splits if there are any, from the rows of metadata files, in their order."""
    layout = Layout()
    unlisted = {name: name for name in images}  # "" where it was listed; else the text that others have already
    labels: dict[str, str] = {}
    by_split: dict[Split, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        if name := unlisted.get(row.path):
            label = labels.setdefault(row.label, row.label)
            by_split[row.split or split_of(name.split("/")[0]) or "train"].append((name, label))
        elif name is None:
            layout.problems.append(f"{row.where}: no image {row.path}")
        else:
            layout.problems.append(f"{row.where}: lists {row.path} again")
        unlisted[row.path] = ""
    layout.splits = {split: by_split[split] for split in SPLITS if split in by_split}
    layout.ignored = {name: "not in the metadata" for name in unlisted.values() if name}
    return layout


def find_class_problems(splits: Mapping[Split, Iterable[tuple[str, str]]]) -> list[str]:
    """List what is wrong with classes and splits taken together."""
    found = {split: {label for _, label in of_split} for split, of_split in splits.items()}
    problems = [f"{split}: no images" for split, labels in found.items() if not labels]
    if "train" not in found:
        problems.append("no images for train: put class folders at the top, or into folders train, val and test")
    for split, labels in found.items():
        if lacking := sorted(labels - found.get("train", labels)):
            problems.append(f"{split}: train lacks these classes: {', '.join(lacking)}")
    by_key: dict[str, str] = {}
    for label in sorted(set().union(*found.values())):
        key = unicodedata.normalize("NFC", label.casefold())
        if (other := by_key.setdefault(key, label)) != label:
            problems.append(f"classes {other!r} and {label!r} differ only in case or encoding; rename one")
        if not label or UNPRINTABLE.search(label):
            problems.append(f"class {label!r}: the name is empty or has unprintable characters; rename it")
    return problems


def _check_split_folders(split_folders: Mapping[str, Split], tops: list[str], problems: list[str]) -> None:
    if not split_folders:
        return
    for split in SPLITS:
        same = [top for top, of_top in split_folders.items() if of_top == split]
        if len(same) > 1:
            problems.append(f"{', '.join(same)}: several folders for the split {split}; merge them")
    if others := [top for top in tops if top not in split_folders]:
        problems.append(
            f"{', '.join(others)}: neither train, val nor test, but next to {', '.join(split_folders)}; move class "
            "folders into train, or rename a class that is named like a split"
        )


def _walk_order(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    return folder, base
