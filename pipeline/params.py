"""params.yaml, read once, checked strictly, and from then on a frozen model."""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from pipeline.datasets import DATASETS
from pipeline.errors import InputError
from pipeline.manifest import Dtype, Scheme
from pipeline.models import Model, describe


def _tuple_from_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


# YAML has lists where the model has tuples.
PerChannel = Annotated[tuple[float, ...], BeforeValidator(_tuple_from_list), Field(min_length=1)]


class NormalizeParams(Model):
    """The section `normalize`; `mean` and `std` are those of scheme `custom`, in units of pixels scaled to [0, 1]."""

    scheme: Scheme
    mean: PerChannel | None
    std: PerChannel | None
    dtype: Dtype
    samples_per_shard: Annotated[int, Field(ge=1)]

    @field_validator("mean", "std")
    @classmethod
    def _belongs_to_custom(cls, value: PerChannel | None, info: ValidationInfo) -> PerChannel | None:
        is_custom = info.data.get("scheme") == "custom"
        if is_custom and value is None:
            raise ValueError("should be a list of numbers, one a channel, with scheme 'custom'")
        if not is_custom and value is not None and "scheme" in info.data:
            raise ValueError(f"should be null with scheme '{info.data['scheme']}', which has its own")
        return value

    @field_validator("mean")
    @classmethod
    def _mean_is_a_pixel(cls, mean: PerChannel | None) -> PerChannel | None:
        if mean and not all(0 <= value <= 1 for value in mean):
            raise ValueError("should be in [0, 1], as pixels are scaled to it")
        return mean

    @field_validator("std")
    @classmethod
    def _std_divides(cls, std: PerChannel | None, info: ValidationInfo) -> PerChannel | None:
        if std and not all(0 < value <= 1 for value in std):
            raise ValueError("should be in (0, 1], as pixels are scaled to [0, 1] and divided by it")
        mean = info.data.get("mean")
        if std and mean and len(std) != len(mean):
            raise ValueError(f"should have as many numbers as mean, {len(mean)}")
        return std


class ReportParams(Model):
    """The section `report`."""

    decimals: Annotated[int, Field(ge=1, le=15)]


class Params(Model):
    """The whole of params.yaml."""

    dataset: str
    normalize: NormalizeParams
    report: ReportParams

    @field_validator("dataset")
    @classmethod
    def _is_known(cls, dataset: str) -> str:
        if dataset not in DATASETS:
            raise ValueError(f"should be one of {', '.join(DATASETS)}")
        return dataset


def load_params(path: Path) -> Params:
    """Read and check the whole file, so that a mistake in a later stage's section is found by the first.

    Raises InputError, one line that names file, key, rule and value.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: run this in the repository's top folder") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # All but the first are what PyYAML lets slip for a value that is not of its tag, such as `!!int x`.
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


class _Loader(yaml.SafeLoader):
    """Reads plain values as YAML 1.2 and DVC do, and takes no key twice.

    PyYAML knows YAML 1.1, where 010 is 8, 1:30 is 90 and `no` is false, and lets the last of two equal keys win.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), keys)
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {twice!r}", node.start_mark)
        return mapping


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), None)
