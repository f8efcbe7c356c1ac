"""params.yaml: read once, validated strictly, and from then on a frozen model."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta

from pipeline.sources.registry import DATASETS
from shardset.errors import InputError
from shardset.manifest import Dtype, Orientation, Preparation, Scheme, Split
from shardset.models import Model, parse, printable

# PyYAML's time grows with the square of both.
MAX_LENGTH = 16_384  # characters of the file
MAX_DEPTH = 20  # levels of nesting
MAX_REASON = 300  # characters of PyYAML's message

UnitInterval = Annotated[float, Meta(ge=0, le=1)]
ProperFraction = Annotated[float, Meta(gt=0, lt=1)]
PositiveUnitInterval = Annotated[float, Meta(gt=0, le=1)]


class NormalizeParams(Model, frozen=True):
    """The section `normalize`; `mean` and `std` are for scheme `custom`, of pixels scaled to [0, 1]."""

    scheme: Scheme
    mean: tuple[UnitInterval, ...] | None
    std: tuple[PositiveUnitInterval, ...] | None
    dtype: Dtype
    samples_per_shard: Annotated[int, Meta(ge=1)]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if self.scheme == "custom" and not values:
                raise ValueError(f"{name}: should be a list of numbers, one per channel, with scheme 'custom'")
            if self.scheme != "custom" and values is not None:
                raise ValueError(f"{name}: should be null with scheme '{self.scheme}', which has its own")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise ValueError(f"std: should have as many numbers as mean, {len(self.mean)}")


class ImagesParams(Model, frozen=True):
    """The section `images`: how image files become samples, and how samples of train become those of other splits."""

    source: Annotated[str, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=1, le=4096)]
    resize: Annotated[int, Meta(ge=1, le=8192)] | None
    orientation: Orientation
    unreadable: Literal["fail", "skip"]
    test_fraction: ProperFraction | None
    val_fraction: ProperFraction | None

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize: should be at least size, {self.size}, or null")
        if (self.test_fraction or 0) + (self.val_fraction or 0) >= 1:
            raise ValueError("val_fraction: should leave something for train: less than 1 - test_fraction")

    @property
    def preparation(self) -> Preparation:
        """How images become pixels, as the manifest records it."""
        return Preparation(
            resize=self.resize, size=self.size, filter="bilinear", orientation=self.orientation, background="white"
        )

    @property
    def fractions(self) -> dict[Split, float | None]:
        """The fractions of train that become other splits, in the order in which they are taken."""
        return {"test": self.test_fraction, "val": self.val_fraction}


class AuditParams(Model, frozen=True):
    """The section `audit`: limits on what may be found, and a CSV file of pairs that are not duplicates."""

    max_leaked: Annotated[int, Meta(ge=0)] | None
    max_exact_duplicates: Annotated[int, Meta(ge=0)] | None
    max_label_conflicts: Annotated[int, Meta(ge=0)] | None
    ignore: Annotated[str, Meta(min_length=1)] | None

    @property
    def limits(self) -> dict[str, int | None]:
        """The limits by key, None for no limit."""
        return {
            "max_leaked": self.max_leaked,
            "max_exact_duplicates": self.max_exact_duplicates,
            "max_label_conflicts": self.max_label_conflicts,
        }


class ReportParams(Model, frozen=True):
    """The section `report`."""

    decimals: Annotated[int, Meta(ge=1, le=15)]


class Params(Model, frozen=True):
    """The contents of params.yaml."""

    dataset: str
    images: ImagesParams
    audit: AuditParams
    normalize: NormalizeParams
    report: ReportParams

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS and not re.fullmatch(r"images|torchvision:\w+", self.dataset):
            raise ValueError(f"dataset: should be one of {', '.join(DATASETS)}, images, torchvision:CLASS")


def load_params(path: Path) -> Params:
    """Read and check the entire file, so that the first stage finds a mistake in a later stage's section.

    Raises InputError, one line that names the file, the key, the rule and the value.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LENGTH + 1)
        if len(text) > MAX_LENGTH:
            raise InputError(f"{path}: should have at most {MAX_LENGTH:,} characters")
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: run this in the repository root") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # PyYAML lets the others escape for a value that doesn't match its tag, such as `!!int x`.
        raise InputError(f"{path}: not valid YAML: {printable(str(error), MAX_REASON)}") from None
    try:
        return parse(data, Params)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Reads plain values as YAML 1.2 and DVC do, and rejects duplicate keys.

    PyYAML implements YAML 1.1, where 010 is 8, 1:30 is 90 and `no` is false, and lets the last of two equal keys win.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", self.get_mark())
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            counts = Counter(key.value for key, _ in node.value).most_common(1)
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {counts[0][0]!r}", node.start_mark)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Ignore merge keys: merges of merges double a mapping with each line."""


# Sets are unordered and would pass for lists.
_Loader.yaml_constructors = {
    tag: constructor for tag, constructor in yaml.SafeLoader.yaml_constructors.items() if tag != "tag:yaml.org,2002:set"
}
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), None)
