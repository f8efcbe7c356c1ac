"""The base of all typed files: params.yaml, manifest.json, stats.json.

msgspec, for what it costs to import: each command is a process of its own, most of whose time is start-up.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

MAX_SHOWN = 60  # characters of a wrong value
# Types as those who write YAML call them.
NAMES = {
    "array": "a list",
    "float": "a number",
    "int": "a whole number",
    "object": "a mapping of keys to values",
    "str": "a string",
}

Parsed = TypeVar("Parsed", bound="Model")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record that takes the types it names and no unknown key.

    What a type can't say is checked in `__post_init__`, by a ValueError that says "key: what it should be".
    """


def parse_json(text: bytes, model: type[Parsed]) -> Parsed:
    """Parse strict JSON. Raises ValueError, in one line that names key, rule and value."""
    try:
        return parse(msgspec.json.decode(text), model)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse(data: object, model: type[Parsed]) -> Parsed:
    """Check plain data and make a model of it. Raises ValueError, in one line that names key, rule and value."""
    try:
        return msgspec.convert(data, model)
    except msgspec.ValidationError as error:
        raise ValueError(_describe(str(error), data, model)) from None


def _describe(message: str, data: object, model: type[Model]) -> str:
    message, _, where = message.partition(" - at `")
    # "..." is one of the values of a mapping: msgspec doesn't say which.
    path = ["*" if key == "..." else key for key in re.findall(r"\w+|\.\.\.", where)]
    if found := re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", message, re.DOTALL):
        rule = "unknown key" if "unknown" in found[1] else "missing key"
        return f"{shown('.'.join([*path, found[2]]))}: {rule}"
    if where.startswith("key`"):
        return f"{'.'.join(path[2:]) or 'the file'}: should have strings as keys, and none but those that are known"
    if found := re.fullmatch(r"(\w+): (should .*)", message):
        path, rule = [*path, found[1]], found[2]
    elif message == "Number out of range":
        rule = "should be a number that float64 can hold"
    elif message.startswith("Invalid enum value"):
        rule = f"should be {_allowed(model, path)}"
    else:
        rule = message.partition(", got ")[0].replace("Expected", "should be")
        rule = re.sub(r"`(.*?)`", lambda types: " or ".join(NAMES.get(it, it) for it in types[1].split(" | ")), rule)
    return f"{'.'.join(path) or 'the file'}: {rule}{''.join(_got(data, path))}"


def _got(data: Any, path: list[str]) -> Iterator[str]:  # noqa: ANN401 (whatever was parsed)
    """Say what stands at `path`, as it stands in the file: null and true, not None and True."""
    for key in path:
        if key == "*":
            return
        data = data[int(key) if isinstance(data, list | tuple) else key]
    if not isinstance(data, dict):
        # In pieces, as many as are shown: aliases of YAML can make a value of a few bytes that is endless when written.
        pieces = json.JSONEncoder(default=str, ensure_ascii=False, skipkeys=True, check_circular=False).iterencode(data)
        yield f", got {shown(''.join(islice(pieces, MAX_SHOWN + 1)))}"


def _allowed(model: Any, path: list[str]) -> str:  # noqa: ANN401 (a type)
    for key in path:
        # What is named by an index or is optional is the first argument of its type.
        of = next(iter(get_args(model)), model)
        model = of if key.isdecimal() else get_type_hints(of)[key]
    return " or ".join(map(repr, get_args(model)))


def shown(text: str, length: int = MAX_SHOWN) -> str:
    """Make what came from a file fit for one line of a terminal: of printable characters and not too long."""
    text = "".join(character if character.isprintable() else " " for character in text[: 2 * length])
    text = " ".join(text.split())
    return text if len(text) <= length else text[:length] + "..."
