"""How evenly samples are spread over classes."""

from pipeline.audit.details import Details
from pipeline.report.wording import counted
from shardset.manifest import Split

BALANCED = 1.1  # largest class / smallest class


def class_range(details: Details, split: Split) -> tuple[tuple[int, str], tuple[int, str]]:
    """Find the smallest and the largest class of a split: samples and name."""
    samples = [(of.samples, name) for name, of in details.splits[split].classes.items()]
    return min(samples, key=lambda of: of[0]), max(samples, key=lambda of: of[0])


def is_balanced(details: Details) -> bool:
    """Whether the classes of train have about equally many samples."""
    (smallest, _), (largest, _) = class_range(details, "train")
    return largest <= BALANCED * smallest


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
