"""The base of all typed files: params.yaml, manifest.json, stats.json.

They use msgspec because it imports quickly: each command is a process of its own that spends most of its time starting.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

MAX_PRINTED = 60  # characters of a wrong value
# The names that YAML users know for these types.
TYPE_NAMES = {
    "array": "a list",
    "float": "a number",
    "int": "a whole number",
    "object": "a mapping of keys to values",
    "str": "a string",
}

Parsed = TypeVar("Parsed", bound="Model")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record that accepts only the declared types and rejects unknown keys.

    Rules that types can't express are checked in `__post_init__`, which raises ValueError("key: should be ...").
    """


def render_json(data: object) -> str:
    """Render JSON whose bytes depend on `data` alone. Keys keep their order, so red comes before green and blue."""
    # Indented by msgspec, because json itself takes several times as long for text with indentation.
    return msgspec.json.format(json.dumps(data, allow_nan=False), indent=2) + "\n"


def parse_json(text: bytes, model: type[Parsed]) -> Parsed:
    """Parse strict JSON into a model. Raises ValueError with one line that names the key, the rule and the value."""
    try:
        return parse(msgspec.json.decode(text), model)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse(data: object, model: type[Parsed]) -> Parsed:
    """Convert plain data into a model. Raises ValueError with one line that names the key, the rule and the value."""
    try:
        return msgspec.convert(data, model)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), data, model)) from None


def printable(text: str, max_length: int = MAX_PRINTED) -> str:
    """Make text from a file safe to print on one line: no control characters, shortened to `max_length`."""
    text = "".join(character if character.isprintable() else " " for character in text[: 2 * max_length])
    text = " ".join(text.split())
    return text if len(text) <= max_length else text[:max_length] + "..."


def _explain(message: str, data: object, model: type[Model]) -> str:
    message, _, location = message.partition(" - at `")
    # msgspec writes "..." for a value of a mapping, without saying which one.
    path = ["*" if key == "..." else key for key in re.findall(r"\w+|\.\.\.", location)]
    if match := re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", message, re.DOTALL):
        rule = "unknown key" if "unknown" in match[1] else "missing key"
        return f"{printable('.'.join([*path, match[2]]))}: {rule}"
    if location.startswith("key`"):
        return f"{'.'.join(path[2:]) or 'the file'}: keys should be among the allowed names"
    if match := re.fullmatch(r"(\w+): (should .*)", message):
        path, rule = [*path, match[1]], match[2]
    elif message == "Number out of range":
        rule = "should be a number that float64 can hold"
    elif message.startswith("Invalid enum value"):
        rule = f"should be {_allowed_values(model, path)}"
    else:
        rule = message.partition(", got ")[0].replace("Expected", "should be")
        rule = re.sub(r"`(.*?)`", lambda types: " or ".join(TYPE_NAMES.get(t, t) for t in types[1].split(" | ")), rule)
    return f"{'.'.join(path) or 'the file'}: {rule}{''.join(_actual_value(data, path))}"


def _actual_value(data: Any, path: list[str]) -> Iterator[str]:  # noqa: ANN401 (any parsed data)
    """Render the value at `path` as the file spells it: null and true, not None and True."""
    for key in path:
        if key == "*":
            return
        data = data[int(key) if isinstance(data, list | tuple) else key]
    if not isinstance(data, dict):
        # Render only as much as is printed: with YAML aliases, a few bytes can expand to an endless value.
        pieces = json.JSONEncoder(default=str, ensure_ascii=False, skipkeys=True, check_circular=False).iterencode(data)
        yield f", got {printable(''.join(islice(pieces, MAX_PRINTED + 1)))}"


def _allowed_values(model: Any, path: list[str]) -> str:  # noqa: ANN401 (a type)
    for key in path:
        # An optional type and a list both have the type of interest as their first argument, a mapping as its last.
        inner = get_args(model)[-1] if key == "*" else next(iter(get_args(model)), model)
        model = inner if key == "*" or key.isdecimal() else get_type_hints(inner)[key]
    return " or ".join(map(repr, get_args(model)))
