"""A finding of the report."""

from dataclasses import dataclass
from typing import Literal

from pipeline.report.pictures import Image

NAMED = 3  # names in a sentence
EXAMPLES = 3  # pictures of a finding

Examples = tuple[tuple[Image, ...], ...]  # images, or pairs of images


@dataclass(frozen=True)
class Finding:
    """A sentence, what it means or what to do, the section of the page that shows it, and images to show at once."""

    mark: Literal["look", "note", "good"]
    text: str
    advice: str
    section: str
    examples: Examples = ()
