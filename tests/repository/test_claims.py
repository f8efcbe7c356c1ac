"""What docs/claims.md names exists."""

import re

import pytest

from tests.helpers.workspace import REPOSITORY

CLAIMS = (REPOSITORY / "docs/claims.md").read_text()


def test_every_claim_names_a_test_or_a_command():
    rows = [line for line in CLAIMS.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
    assert len(rows) > 100
    assert [row for row in rows if not re.fullmatch(r"\| .+ \| `[^|]+` \|", row)] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)::", CLAIMS))))
def test_named_tests_exist(path):
    named = set(re.findall(rf"`{path}::(test_\w+)`", CLAIMS))
    defined = set(re.findall(r"^def (test_\w+)\(", (REPOSITORY / path).read_text(), re.MULTILINE))
    assert named - defined == set()


def test_named_commands_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert [name for name in re.findall(r"`(?:time )?make ([\w-]+)`", CLAIMS) if f"\n{name}:" not in makefile] == []
    modules = [REPOSITORY / name.replace(".", "/") for name in re.findall(r"`python -m (tests[\w.]+)`", CLAIMS)]
    assert modules
    files = [(module.with_suffix(".py"), module / "__main__.py") for module in modules]
    assert [pair for pair in files if not any(file.is_file() for file in pair)] == []


def test_links_of_the_pages_lead_to_files():
    for page in [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *REPOSITORY.glob("examples/*/README.md"),
    ]:
        targets = re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", page.read_text())
        local = [target for target in targets if "://" not in target and not target.startswith("../../actions")]
        assert [target for target in local if not (page.parent / target).exists()] == [], page
