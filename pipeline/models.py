"""The base of all typed files: params.yaml, manifest.json, stats.json."""

import json

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN = 60  # characters of a wrong value
# Rules that pydantic words for those who write Python.
RULES = {
    "tuple_type": "should be a list",
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "too_short": "should not be empty",
}


class Model(BaseModel):
    """A frozen record that takes the types it names, no unknown key and no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def describe(error: ValidationError) -> str:
    """Say in one line, for each thing that is wrong, its key, the rule and the value."""
    errors = error.errors(include_url=False)
    # What is wrong inside a value makes the value wrong too, which is not worth saying.
    outer = {details["loc"][:-1] for details in errors if details["loc"]}
    text = "; ".join(_describe(details) for details in errors if details["loc"] not in outer)
    return " ".join(text.split())  # a key or a value may bring line ends of its own


def _describe(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"]) or "the file"
    if details["type"] == "missing":
        return f"{key}: missing key"
    if details["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    rule = RULES.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    rule = rule.replace("Input should", "should").replace("String should", "should")
    if isinstance(details["input"], dict):
        return f"{key}: {rule}"
    # As it stands in the file: null and true, not None and True.
    value = json.dumps(details["input"], default=str, ensure_ascii=False)
    if len(value) > MAX_SHOWN:
        value = value[:MAX_SHOWN] + "..."
    return f"{key}: {rule}, got {value}"
