"""The base of all typed files: params.yaml, manifest.json, stats.json."""

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN = 60  # characters of a wrong value


class Model(BaseModel):
    """A frozen record that takes the types it names, no unknown key and no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def describe(error: ValidationError) -> str:
    """Say in one line, for each thing that is wrong, its key, the rule and the value."""
    text = "; ".join(_describe(details) for details in error.errors(include_url=False))
    return " ".join(text.split())  # a key or a value may bring line ends of its own


def _describe(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"]) or "the file"
    if details["type"] == "missing":
        return f"{key}: missing key"
    if details["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    rule = details["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if isinstance(details["input"], dict):
        return f"{key}: {rule}"
    value = repr(details["input"])
    if len(value) > MAX_SHOWN:
        value = value[:MAX_SHOWN] + "..."
    return f"{key}: {rule}, got {value}"
