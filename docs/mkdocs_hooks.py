# ruff: noqa: INP001 (MkDocs loads this file by its path)
"""Adapt pages that are written for GitHub to the site: more pages, links that leave docs/, blocks of API reference."""

import os
import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Pages that are outside of docs/, and their names on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
}
SOURCES = {name: source for source, name in PAGES.items()}

# Code comes first in these patterns, so that what looks like a link in it stays as it is.
CODE = r"^```.*?^```$|`[^`\n]+`"
IMAGE = re.compile(rf"{CODE}|!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL | re.MULTILINE)
LINK = re.compile(rf"{CODE}|(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL | re.MULTILINE)
# GitHub doesn't show comments, so a page reads well there without the reference that mkdocstrings puts here.
REFERENCE = re.compile(r"^<!-- (:::.*?)\s*-->$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are outside of docs/."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links to other files of the repository into links of the site, or to the repository on GitHub."""

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or target.startswith("#") or "://" in target:
            return match[0]
        path, _, anchor = target.partition("#")
        found = find_target(page.file.src_uri, path)
        if match[0].startswith("!"):
            return f"![{match['text']}]({found})" if found and "://" not in found else ""
        return f"[{match['text']}]({found}{anchor and '#'}{anchor})" if found else match["text"]

    return REFERENCE.sub(r"\1", LINK.sub(replace, IMAGE.sub(replace, markdown)))


def find_target(page: str, path: str) -> str | None:
    """Return where a link of a page leads on the site. None: nowhere, as without GitHub there is no place to name."""
    source = normpath(join(dirname(SOURCES.get(page, f"docs/{page}")), path))
    if (ROOT / source / "README.md").is_file() and source.startswith("docs/"):
        source = join(source, "README.md")
    if source in PAGES:
        return relpath(PAGES[source], dirname(page))
    if source.startswith("docs/"):
        return relpath(source.removeprefix("docs/"), dirname(page))
    if source.startswith("../") or "GITHUB_REPOSITORY" not in os.environ:
        return None
    kind = "tree" if (ROOT / source).is_dir() else "blob"
    server, repository, commit = (os.environ[f"GITHUB_{name}"] for name in ("SERVER_URL", "REPOSITORY", "SHA"))
    return f"{server}/{repository}/{kind}/{commit}/{source}"
