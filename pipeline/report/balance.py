"""How evenly samples are spread over classes."""

from pipeline.audit.details import Details
from pipeline.report.wording import counted
from shardset.manifest import Split

BALANCED = 1.1  # largest class / smallest class
SHIFTED = 0.1  # part of a split that would need other classes to have the shares of train


def class_range(details: Details, split: Split) -> tuple[tuple[int, str], tuple[int, str]]:
    """Find the smallest and the largest class of a split: samples and name."""
    samples = [(of.samples, name) for name, of in details.splits[split].classes.items()]
    return min(samples, key=lambda of: of[0]), max(samples, key=lambda of: of[0])


def unbalanced_splits(details: Details) -> list[Split]:
    """List the splits whose classes differ much in size."""
    ranges = {split: class_range(details, split) for split in details.splits}
    return [split for split, ((smallest, _), (largest, _)) in ranges.items() if largest > BALANCED * smallest]


def shifted_classes(details: Details) -> dict[Split, str]:
    """Find the splits whose class shares differ from those of train, and the class that differs most in each."""
    train = details.splits["train"]
    found: dict[Split, str] = {}
    for split, of in details.splits.items():
        # Differences of shares, multiplied by both totals: in floats, equal ones might differ.
        changes = {
            name: abs(of_class.samples * train.samples - train.classes[name].samples * of.samples)
            for name, of_class in of.classes.items()
        }
        if sum(changes.values()) / 2 > SHIFTED * of.samples * train.samples:
            found[split] = max(changes, key=lambda name: changes[name])
    return found


def balance_sentence(details: Details) -> str:
    """Say how many samples a class has in each split."""
    parts = []
    for split in details.splits:
        (smallest, smallest_name), (largest, largest_name) = class_range(details, split)
        if smallest == largest:
            parts.append(counted(largest, f"{split} image"))
        else:
            parts.append(f"{smallest:,} ({smallest_name}) to {largest:,} ({largest_name}) {split} images")
    *others, last = parts
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Each class has {listed}."
