"""Commands on the pages of docs/, to be run as they are."""

import re

from tests.helpers.workspace import REPOSITORY


def read_sections(page):
    """The text of each section of a page by its heading."""
    parts = re.split(r"^##+ (.+)$", (REPOSITORY / "docs" / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def find_blocks(text, language="bash"):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_block(workspace, block, replaced=(), **env):
    """Run a block in a shell that stops at the first error; `replaced` maps examples to what is there in the test."""
    for example, value in dict(replaced).items():
        assert example in block
        block = block.replace(example, str(value))
    done = workspace.run("bash", "-euo", "pipefail", "-c", block, **env)
    assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
    return done.stdout
