"""Who made the known datasets, for the card."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a dataset comes from; `citation` is a BibTeX entry, `license` a URL."""

    name: str
    creators: tuple[str, ...]
    published: str
    url: str
    description: str
    citation: str
    license: str


# SPDX's names for "there is no license" and "nothing is said about it".
NO_LICENSE = "https://spdx.org/rdf/3.0.1/terms/Licensing/None"
NO_ASSERTION = "https://spdx.org/rdf/3.0.1/terms/Licensing/NoAssertion"

SYNTHETIC_PUBLISHED = "2026"  # with the code that generates it

CREATORS = ("Alex Krizhevsky", "Vinod Nair", "Geoffrey Hinton")
URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
CITATION = """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009},
  url = {https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf}
}"""

ORIGINS = {
    "cifar10": Origin(
        name="CIFAR-10",
        creators=CREATORS,
        published="2009",
        url=URL,
        description="Small colour photographs of ten classes, by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton.",
        citation=CITATION,
        license=NO_LICENSE,  # its page names none
    ),
    "cifar100": Origin(
        name="CIFAR-100",
        creators=CREATORS,
        published="2009",
        url=URL,
        description="Small colour photographs of 100 classes, by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton.",
        citation=CITATION,
        license=NO_LICENSE,  # its page names none
    ),
}
