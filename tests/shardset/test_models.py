import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import field

from shardset.models import Model, parse_json, printable, render_json


class Part(Model, frozen=True):
    color: Literal["red", "green"]


class Example(Model, frozen=True):
    name: str
    sizes: tuple[int, ...] = ()
    parts: dict[Literal["left", "right"], Part] = field(default_factory=dict)


@given(st.text(), st.integers(1, 80))
def test_printable_text_is_one_short_line(text, max_length):
    shown = printable(text, max_length)
    assert shown.isprintable()
    assert len(shown) <= max_length + len("...")
    assert shown == shown.strip() or shown.endswith("...")


def test_printable_text_has_no_control_characters():
    assert printable("red\x1b[31m\n\tgreen\u202e\x00") == "red [31m green"
    assert printable("é 数据") == "é 数据"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"name": 1}', "name: should be a string, got 1"),
        (b'{"name": null}', "name: should be a string, got null"),
        (b'{"name": "a", "sizes": [1, true]}', "sizes.1: should be a whole number, got true"),
        (b'{"name": "a", "size": 1}', "size: unknown key"),
        (b'{"name": "a", "parts": {"left": {"color": "blue"}}}', "parts.*.color: should be 'red' or 'green'"),
        (b'{"name": "a", "parts": {"top": {"color": "red"}}}', "parts: keys should be among the allowed names"),
        (b"{}", "name: missing key"),
        (b"[]", "the file: should be a mapping of keys to values, got []"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_invalid_json_is_explained_in_one_line(text, message):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse_json(text, Example)
    assert str(caught.value) == message


def test_rendered_json_keeps_the_order_of_keys():
    text = render_json({"red": 1, "green": [2, 3], "blue": None})
    assert list(json.loads(text)) == ["red", "green", "blue"]
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_json({"mean": float("nan")})


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_rendered_json_is_that_of_the_standard_library(data):
    assert render_json(data) == json.dumps(data, indent=2) + "\n"
