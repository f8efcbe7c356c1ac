import json

import pytest

from benchmarks.results import render
from tests.helpers.workspace import REPOSITORY


@pytest.fixture
def numbers():
    measured = json.loads((REPOSITORY / "benchmarks/results.json").read_bytes())
    measured["compared"]["audit"] = [
        {"name": "ours", "seconds": [4.0, 5.0, 6.0], "cpu_seconds": [8.0], "peak_mb": 150.0, "failure": None}
    ]
    measured["bare_mb"]["audit"] = 40.0
    measured["machine"] = "Linux, 2 cores"
    return measured


def test_audit_has_a_section_of_its_own(numbers):
    text = render(numbers | {"machines": {"audit": "Linux, 2 cores"}})
    section = text.partition("## `audit`: figures of each image, search for near-duplicates\n")[2].partition("\n## ")[0]
    assert "| 5.00 | 4.00 to 6.00 | 1.00 | 8.00 | 110 |" in section
    order = [text.index(f"## `{stage}`") for stage in ("download", "stats", "audit", "normalize")]
    assert order == sorted(order)


def test_stage_measured_on_another_machine_says_so(numbers):
    text = render(numbers | {"machines": {"audit": "Linux, 64 cores"}})
    assert "Measured apart from the rest, in 3 rounds (3 of slow contenders), on Linux, 64 cores\n" in text
