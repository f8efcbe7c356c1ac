"""The page of `dvc plots`, with Vega inside, so that it needs no network. To write it with VERSIONS, which takes npm:

python -m tests.helpers.plots_page
"""

import hashlib
import re
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers.workspace import REPOSITORY

PAGE_PATH = REPOSITORY / ".dvc/plots/page.html"
SCRIPT = re.compile(r'<script data-name="(.*?)">\n(.*?)\n</script>', re.DOTALL)

# From npm, with the SHA-256 of what the page has of each. The templates are for version 5 of Vega-Lite, as DVC's are.
VERSIONS = {
    "vega": ("5.33.1", "135831f62920743d4467bec0df2d78eedd16fa3444077419f1dfc9aa0d55e6da"),
    "vega-lite": ("5.23.0", "9525bc3368d62c580e8fcbf5db63c4a95c04052fe32ced063817c677cc98801c"),
    "vega-embed": ("6.29.0", "16512fd17119051ee3f859467e174fe1503ff86c0a4743aaf8b7c10da3dd83e0"),
}


def hash_script(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def fetch_script(name: str, version: str) -> str:
    """Fetch the minified script of a package from npm, without its link to a source map."""
    with TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
        with tarfile.open(Path(folder, f"{name}-{version}.tgz")) as package:
            member = package.extractfile(f"package/build/{name}.min.js")
            assert member
            script = re.sub(r"\n//# sourceMappingURL=.*\s*$", "", member.read().decode())
    assert "</script" not in script.lower()
    assert "{plot_divs}" not in script  # which DVC replaces
    return script


def render_page(page: str) -> str:
    """Put the scripts of VERSIONS into a page in the place of those that it has."""

    def replace(found: re.Match[str]) -> str:
        version, sha256 = VERSIONS[found[1]]
        script = fetch_script(found[1], version)
        assert hash_script(script) == sha256, f"{found[1]}: {hash_script(script)}"
        return f'<script data-name="{found[1]}">\n{script}\n</script>'

    return SCRIPT.sub(replace, page)


if __name__ == "__main__":
    PAGE_PATH.write_text(render_page(PAGE_PATH.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
