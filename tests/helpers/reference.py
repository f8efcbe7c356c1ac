"""The generated parts of docs/api.md and docs/commands.md. `python -m tests.helpers.reference` writes them."""

import re
import sys

import typer
from typer.cli import get_docs_for_click

import shardset
from pipeline.cli import app
from tests.helpers.workspace import REPOSITORY

NAME = "cifar-pipeline"


def render_names() -> str:
    """Render the table of shardset's public names: each with the first line of its docstring and its source."""
    rows = []
    for name in sorted(shardset.__all__, key=lambda name: (name.endswith("Error"), name.lower())):
        value = getattr(shardset, name)
        path = f"{value.__module__.replace('.', '/')}.py"
        rows.append(f"| `{name}` | {value.__doc__.splitlines()[0]} | [{path}](../{path}) |")
    return "\n".join(["| name | what it is | source |", "|---|---|---|", *rows])


def render_commands() -> str:
    """Render a table of all commands, then the help of each one."""
    program = typer.main.get_command(app)
    rows = [f"| [`{name}`](#{NAME}-{name}) | {command.help} |" for name, command in program.commands.items()]
    text = get_docs_for_click(obj=program, ctx=typer.Context(program), name=NAME)
    sections = text[text.index(f"## `{NAME} ") :].replace("**Usage**:\n\n", "").strip()
    return "\n".join(["| command | what it does |", "|---|---|", *rows, "", sections])


GENERATED = {"docs/api.md": render_names, "docs/commands.md": render_commands}


def generate(page: str, text: str) -> str:
    """Return the page with its generated part as the code is now."""
    part = f"<!-- generated -->\n{GENERATED[page]()}\n<!-- end -->"
    return re.sub("<!-- generated -->.*<!-- end -->", lambda _: part, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in GENERATED:
        path = REPOSITORY / page
        path.write_text(generate(page, path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit()
