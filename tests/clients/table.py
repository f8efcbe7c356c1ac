"""The table of clients in docs/reuse.md: all but the speeds follows from the clients' code."""

import re

from tests.clients import BATCH_SIZE, CLIENTS
from tests.helpers.workspace import REPOSITORY

PAGE = REPOSITORY / "docs/reuse.md"
HEADER = "| client | works the first time | smallest code | speed |\n|---|---|---|---|\n"
NO_LOOP = "n/a"
NOT_MEASURED = "?"


def render_table(ratios: dict[str, str]) -> str:
    rows = []
    for client in CLIENTS.values():
        code = client.code.replace("BATCH_SIZE", str(BATCH_SIZE))
        ratio = ratios.get(client.name, NOT_MEASURED) if client.loops else NO_LOOP
        rows.append(f"| {client.name} | {client.verdict} | `{code}` | {ratio} |\n")
    return HEADER + "".join(rows)


def find_table(page: str) -> str:
    """Return the table of clients, from its header to its last row."""
    start = page.index(HEADER)
    (rows,) = re.findall(r"(?:\|.*\n)*", page[start:])[:1]
    return rows


def read_ratios(page: str) -> dict[str, str]:
    """Return the speeds that a page states, by the client's name."""
    rows = find_table(page).removeprefix(HEADER).splitlines()
    return {cells[1].strip(): cells[-2].strip() for cells in (row.split("|") for row in rows)}


def replace_table(page: str, ratios: dict[str, str]) -> str:
    return page.replace(find_table(page), render_table(ratios))
