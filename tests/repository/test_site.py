"""The site made from docs/: every link leads somewhere, nothing is loaded from elsewhere, and every page is found."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from posixpath import dirname, join, relpath
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.helpers.chromium import PROGRAM, open_chromium
from tests.helpers.reference import GENERATED, generate
from tests.helpers.workspace import REPOSITORY

DOCS_DIR = REPOSITORY / "docs"
GITHUB = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "someone/cifar", "GITHUB_SHA": "0123abc"}
SITE_URL = "https://someone.github.io/cifar/"
WORKFLOW = yaml.safe_load((REPOSITORY / ".github/workflows/docs.yml").read_text())
# Elements that load what their attribute names. Links of these kinds only name an address.
LOADING = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
NAMING_LINKS = {"canonical", "next", "prev"}


class Links(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.targets, self.loaded = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name")}
        for name in ("href", "src"):
            if target := given.get(name):
                self.targets.append(target)
                if (tag, name) in LOADING and given.get("rel") not in NAMING_LINKS:
                    self.loaded.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    site_dir = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site_dir],
        cwd=REPOSITORY,
        env=os.environ | GITHUB | {"SITE_URL": SITE_URL, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return site_dir


@pytest.fixture(scope="module")
def pages(site):
    return {page.relative_to(site).as_posix(): Links(page.read_text()) for page in site.rglob("*.html")}


@pytest.fixture
def hooks(monkeypatch):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    for name in GITHUB:
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", DOCS_DIR / "mkdocs_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_elsewhere(target):
    return re.match(r"(https?:)?//", target) is not None


def github_anchors(page):
    """The anchors that GitHub gives to the headings of a page, if no two headings are the same."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def find_in_site(page, target):
    """The file of the site that a link leads to, and the anchor in it."""
    url = urlsplit(target)
    path = join("/cifar", dirname(page), unquote(url.path)) if url.path else f"/cifar/{page}"
    return relpath(path, "/cifar"), unquote(url.fragment)


def test_internal_links_lead_to_files_and_anchors(site, pages):
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            if is_elsewhere(target) and not target.startswith(SITE_URL):
                continue
            path, anchor = find_in_site(page, target)
            file = site / path / "index.html" if (site / path).is_dir() else site / path
            anchors = pages[path].anchors if path in pages else {""}
            if not file.is_file() or (anchor and anchor not in anchors):
                broken.append(f"{page}: {target}")
    assert broken == []


def test_links_to_the_repository_name_files_of_the_built_commit(pages):
    repository = "/".join(GITHUB[name] for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    targets = {target for links in pages.values() for target in links.targets if target.startswith(f"{repository}/")}
    paths = [re.fullmatch(rf"{repository}/(blob|tree)/0123abc/(.+?)(#.*)?", target) for target in targets]
    assert len(paths) > 20
    for match in paths:
        path = REPOSITORY / match[2]
        assert path.is_dir() if match[1] == "tree" else path.is_file(), path


def test_pages_name_nothing_to_load_from_another_host(site, pages):
    assert {page: found for page, links in pages.items() if (found := [*filter(is_elsewhere, links.loaded)])} == {}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert [url for url in re.findall(r"(?:url\(|@import )['\"]?([^)'\"]+)", styles) if is_elsewhere(url)] == []


@pytest.mark.browser
@pytest.mark.skipif(not PROGRAM, reason="needs Chromium")
def test_browser_requests_nothing_from_another_host(site, tmp_path):
    with open_chromium(tmp_path) as page:
        for name in ("index.html", "api.html"):
            page.open(site / name, 1280, "light")
            urls = [event["request"]["url"] for event in page.found("Network.requestWillBeSent")]
            assert len(urls) > 3
            assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(not PROGRAM, reason="needs Chromium")
def test_phone_scrolls_tables_but_not_pages(site, tmp_path):
    with open_chromium(tmp_path) as page:
        for path in site.rglob("*.html"):
            page.open(path, 360, "light")
            assert page.evaluate("document.documentElement.scrollWidth <= 360"), path


def test_navigation_has_every_page(hooks):
    nav = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [path.relative_to(DOCS_DIR).as_posix() for path in DOCS_DIR.rglob("*.md")]
    outside = [name for name in hooks.OUTSIDE.values() if name.endswith(".md")]
    assert sorted(nav) == sorted([*pages, *outside])


def test_every_picture_of_a_page_is_on_the_site(pages, hooks):
    sources = {path.relative_to(DOCS_DIR).as_posix(): path for path in DOCS_DIR.rglob("*.md")}
    sources |= {name: REPOSITORY / path for name, path in hooks.SOURCES.items() if name.endswith(".md")}
    for name, source in sources.items():
        pictures = [path for path in re.findall(r"!\[.*?\]\((.*?)\)", source.read_text()) if "badge" not in path]
        shown = pages[name.replace("README.md", "index.md").replace(".md", ".html")].loaded
        assert {Path(path).name for path in pictures} <= {Path(target).name for target in shown}


def test_every_page_is_reached_from_the_readme_as_markdown():
    found = []
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        found.append(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            path = Path(os.path.normpath(page.parent / target))
            path = path / "README.md" if path.is_dir() else path  # which GitHub shows
            if path.suffix == ".md" and path.is_file() and path not in [*found, *waiting]:
                waiting.append(path)
    assert sorted({*DOCS_DIR.rglob("*.md")} - {*found}) == []


def test_anchors_in_markdown_are_those_that_github_makes():
    broken = []
    for page in [*REPOSITORY.glob("*.md"), *DOCS_DIR.rglob("*.md"), *REPOSITORY.glob("examples/*/README.md")]:
        for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text()):
            if anchor not in github_anchors(page.parent / path if path else page):
                broken.append(f"{page.relative_to(REPOSITORY)}: {path}#{anchor}")
    assert broken == []


def test_decisions_are_all_listed():
    listed = re.findall(r"^\d\. \[(.*)\]\((.*)\)$", (DOCS_DIR / "decisions/README.md").read_text(), re.MULTILINE)
    titles = {path.name: path.read_text().splitlines()[0] for path in (DOCS_DIR / "decisions").glob("0*.md")}
    assert {name: f"# {number}. {title}" for number, (title, name) in enumerate(listed, 1)} == titles


@pytest.mark.parametrize("page", GENERATED)
def test_generated_parts_are_those_of_the_code(page):
    if f"typer=={version('typer')}\n" not in (REPOSITORY / "constraints.txt").read_text():
        pytest.skip("other versions of Typer word the help differently")
    text = (REPOSITORY / page).read_text()
    assert generate(page, text) == text, "run python -m tests.helpers.reference"


@pytest.mark.parametrize(
    ("page", "path", "target"),
    [
        ("index.md", "docs/reuse.md", "reuse.md"),
        ("index.md", "docs/decisions", "decisions/README.md"),
        ("index.md", "params.yaml", None),
        ("index.md", "../../actions/workflows/ci.yml", None),  # a page of GitHub
        ("reuse.md", "../README.md", "index.md"),
        ("decisions/0004-hard-links.md", "../reuse.md", "../reuse.md"),
        ("decisions/0005-npy-shards.md", "../../benchmarks/RESULTS.md", "../benchmarks.md"),
        ("benchmarks.md", "../docs/reuse.md", "reuse.md"),
    ],
)
def test_link_leads_to_a_page_or_nowhere_without_github(page, path, target, hooks):
    assert hooks.find_target(page, path) == target


def test_code_and_other_hosts_keep_their_links(hooks):
    class Page:
        class file:  # noqa: N801
            src_uri = "reuse.md"

    kept = "[a](https://dvc.org) `[b](../x)`\n\n```\n[c](../params.yaml)\n```\n"
    text = f"{kept}[`d`](../README.md#use) ![e](../data/e.png)[![f](../../f.svg)](../../f)"
    assert hooks.on_page_markdown(text, Page) == f"{kept}[`d`](index.md#use) "


def test_only_the_job_that_runs_no_code_may_publish():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    build, deploy = (WORKFLOW["jobs"][name] for name in ("build", "deploy"))
    assert "permissions" not in build
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert [step["uses"].partition("@")[0] for step in deploy["steps"]] == ["actions/deploy-pages"]


def test_site_is_built_strictly_from_what_the_extra_lists():
    commands = [step["run"] for step in WORKFLOW["jobs"]["build"]["steps"] if "run" in step]
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in extra]
    assert commands[0] == f"python -m pip install --constraint constraints.txt {' '.join(names)} ruff"
    # With --quiet, MkDocs doesn't count warnings, so that --strict would have no effect.
    assert commands[1] == "python -m mkdocs build --strict"
    assert "python -m mkdocs build --strict\n" in (REPOSITORY / "Makefile").read_text()
