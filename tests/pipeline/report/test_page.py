"""The report's page in a real browser, where there is one."""

import itertools

import numpy as np
import pytest
from axe_core_python.base import AXE_SCRIPT  # type: ignore[import-untyped]

from tests.helpers.chromium import PROGRAM, open_chromium
from tests.helpers.shard_sets import make_images, report_on, write_raw_set

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
]

VIEWS = [(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """The report of a set with three splits: 10 val images and 30 test images have a near-duplicate in train."""
    path = tmp_path_factory.mktemp("page")
    images = make_images(80)
    val = np.concatenate([np.roll(images[:10], 1, axis=2), make_images(4, seed=2)])
    test = np.concatenate([np.roll(images[10:40], 1, axis=3), make_images(4, seed=1)])
    return report_on(write_raw_set(path / "raw", images, test, num_classes=10, val=val), path) / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]} px, {view[1]}")
def page(request, browser, page_path):
    """The report, open in a browser of some width and colour scheme."""
    browser.open(page_path, *request.param)
    return browser


def test_page_loads_all_of_itself_and_nothing_else(page, page_path):
    assert page.found("Runtime.consoleAPICalled") == page.found("Runtime.exceptionThrown") == []
    assert page.found("Log.entryAdded") == page.found("Network.loadingFailed") == []
    urls = [request["request"]["url"] for request in page.found("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [page_path.as_uri()]
    num_images, num_loaded = page.evaluate(
        "[document.images.length, [...document.images].filter(it => it.complete && it.naturalWidth > 0).length]"
    )
    # Strips of each class twice, mean images, strips of the images that stand out, and pairs of near-duplicates.
    assert num_images == num_loaded == 2 * 10 + 11 + 3 * 4 + (24 + 12)


def test_page_fits_its_width(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # Wider elements, such as tables, scroll within themselves.
    assert page.evaluate(
        "[...document.querySelectorAll('img, svg, figure, p, dl')].every(it => {"
        "  const box = it.getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth })"
    )


def test_page_can_be_read_by_a_screen_reader(page):
    assert page.evaluate("[...document.images].every(it => it.alt.length > 5)")
    assert page.evaluate("[...document.querySelectorAll('svg')].every(it => it.closest('[role=img][aria-label]'))")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(it => +it.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_text_colour_follows_the_colour_scheme(browser, page_path):
    ink = {}
    for scheme in ("light", "dark"):
        browser.open(page_path, 1400, scheme)
        ink[scheme] = browser.evaluate(
            "['body', 'svg text'].map(it => getComputedStyle(document.querySelector(it)))"
            ".map((it, i) => i ? it.fill : it.color).concat(getComputedStyle(document.body).backgroundColor)"
        )
    for text, in_plots, paper in ink.values():
        assert text == in_plots != paper
    assert ink["light"] != ink["dark"]


def test_axe_finds_no_violation(page):
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run().then(it => it.violations.map(v => [v.id, v.nodes.map(n => n.html).slice(0, 3)]))")
    assert found == []
