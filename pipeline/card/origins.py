"""Who made the known datasets, for the card."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a dataset comes from; `citation` is a BibTeX entry, `license` a URL."""

    name: str
    creators: tuple[str, ...]
    published: str
    url: str | None
    description: str
    citation: str
    license: str


# SPDX's names for "there is no license" and "nothing is said about it".
NO_LICENSE = "https://spdx.org/rdf/3.0.1/terms/Licensing/None"
NO_ASSERTION = "https://spdx.org/rdf/3.0.1/terms/Licensing/NoAssertion"

CREATORS = ("Alex Krizhevsky", "Vinod Nair", "Geoffrey Hinton")
URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
CITATION = """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009},
  url = {https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf}
}"""

SYNTHETIC_CITATION = """@misc{cifar-pipeline-synthetic,
  title = {Synthetic images of cifar-pipeline},
  author = {{The cifar-pipeline contributors}},
  year = {2026}
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
    "synthetic": Origin(
        name="Synthetic images",
        creators=("The cifar-pipeline contributors",),
        published="2026",
        url=None,
        description="Generated images in the shape of CIFAR-10, with a pattern for each of ten classes.",
        citation=SYNTHETIC_CITATION,
        license=NO_ASSERTION,
    ),
}
