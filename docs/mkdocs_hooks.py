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
# Set on GitHub only. Without it, links to other files of the repository become plain text.
REPOSITORY = "/".join(os.environ[name] for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY") if name in os.environ)
# Files that are outside of docs/, and their names on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "benchmarks/growth.svg": "growth.svg",
    "benchmarks/scaling.svg": "scaling.svg",
}
SOURCES = {name: source for source, name in OUTSIDE.items()}

# Code comes first in these patterns, so that what looks like a link in it stays as it is.
CODE = r"^```.*?^```$|`[^`\n]+`"
IMAGE = re.compile(rf"{CODE}|!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL | re.MULTILINE)
LINK = re.compile(rf"{CODE}|(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL | re.MULTILINE)
# GitHub doesn't show comments, so a page reads well there without the reference that mkdocstrings puts here.
REFERENCE = re.compile(r"^<!-- (:::.*?)\s*-->$", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Link to the repository at the bottom. MkDocs's `repo_url` would request figures from GitHub on each page."""
    if REPOSITORY:
        config.extra["social"] = [{"icon": "fontawesome/brands/github", "link": REPOSITORY}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that are outside of docs/."""
    for source, name in OUTSIDE.items():
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
    """Return where a link of a page leads on the site, or None if that is not known."""
    source = normpath(join(dirname(SOURCES.get(page, f"docs/{page}")), path))
    if (ROOT / source / "README.md").is_file() and source.startswith("docs/"):
        source = join(source, "README.md")
    if source in OUTSIDE:
        return relpath(OUTSIDE[source], dirname(page))
    if source.startswith("docs/"):
        return relpath(source.removeprefix("docs/"), dirname(page))
    if source.startswith("../") or not REPOSITORY:
        return None
    kind = "tree" if (ROOT / source).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/{os.environ['GITHUB_SHA']}/{source}"
