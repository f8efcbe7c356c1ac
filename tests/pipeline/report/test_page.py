"""The report's page and text, also in a real browser, where there is one."""

import itertools
import re
from html import unescape

import numpy as np
import pytest
from axe_core_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from markdown_it import MarkdownIt
from msgspec.structs import replace

from pipeline.report.page import color_of, escape_markdown, normalize_line, render_page, render_text
from pipeline.report.proof import compute_figures, value_table
from pipeline.shards.writer import save_manifest
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.manifest import Normalization, SplitShards
from shardset.shards import open_shards
from tests.helpers.audits import audit_with, make_pair
from tests.helpers.chromium import PROGRAM, open_chromium
from tests.helpers.html import html_texts
from tests.helpers.shard_sets import make_images, make_manifest, make_params, write_raw_set

VIEWS = [(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]
ODD_NAMES = ("<b>bold</b>", "a|b", "*a* _b_ [c](d)", "&lt;", '" onload="x', "{{ 1 }}", "~~a~~ `b`", "数据 🐸")


def normalize(raw, path, **changes):
    """Write the normalized set of a raw one."""
    write_stats(raw.dir, path / "stats.json")
    normalize_shards(raw.dir, path / "stats.json", path / "shards", make_params(**changes))
    return open_shards(path / "shards")


def render(raw, path, near=(), decimals=4, **changes):
    """Render page and text of a raw set, with `near` instead of a search."""
    shards = normalize(raw, path, **changes)
    details, pairs = audit_with(raw, near)
    figures = compute_figures(details.splits, value_table(shards))
    page = render_page(raw, shards, details, pairs, figures, decimals)
    return page, render_text(shards.manifest, details, pairs, figures, decimals)


def without_pictures(page):
    return re.sub('base64,[^"]*|<svg.*?</svg>|<script>.*?</script>|<style>.*?</style>', "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page_and_text(tmp_path_factory):
    """Of a set with three splits, near-duplicates of every kind, and images that stand out."""
    path = tmp_path_factory.mktemp("page")
    images = {"train": make_images(120), "val": make_images(20, seed=1), "test": make_images(60, seed=2)}
    images["train"][7] = images["train"][7, :1]
    images["test"][1] = images["train"][9]
    near = [
        make_pair(("test", index), ("train", index), index / 200, mirrored=index % 3 == 0) for index in range(2, 50)
    ]
    near += [make_pair(("val", index), ("train", 10 * index + 1), 0.3) for index in range(3)]
    near += [make_pair(("train", index), ("train", 60), 0.2) for index in range(70, 120, 10)]
    near += [make_pair(("test", 4), ("val", 8), 0.1), make_pair(("test", 58), ("test", 48), 0.01)]
    return render(write_raw_set(path / "raw", **images, num_classes=10), path, near)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((0.49139967, 0.5, 0.44653), (0.247, 0.1, 1.0), "mean=(0.4914, 0.5000, 0.4465), std=(0.2470, 0.1000, 1.0000)"),
        ((0.28604,), (0.35302,), "mean=(0.2860,), std=(0.3530,)"),
    ],
)
def test_line_to_copy_is_valid_python(mean, std, expected):
    normalization = Normalization(scheme="dataset", mean=mean, std=std)
    channels = ("red", "green", "blue")[: len(mean)]
    shape = (len(mean), 32, 32)
    splits = {"train": SplitShards(samples=0, shards=())}
    manifest = make_manifest(splits, normalization=normalization, channels=channels, image_shape=shape)
    assert normalize_line(manifest) == f"transforms.Normalize({expected})"


@pytest.mark.parametrize(
    ("mean_color", "expected"), [((0, 0.5, 1), "0 128 255"), ((0.2,), "51 51 51"), ((1, 0), "255 255 255")]
)
def test_swatches_have_the_mean_colour(mean_color, expected):
    assert color_of(mean_color) == expected


def test_page_and_text_tell_the_same_findings(page_and_text):
    page, text = page_and_text
    in_text = [re.sub(r"\\(.)|[*`]", r"\1", line[2:]) for line in text.splitlines() if line.startswith("- ")]
    items = re.findall("<li class=[^>]*>(.*)</li>", re.sub("</?code>", "", page))
    in_page = [
        re.findall('<a[^>]*>(?:<span.*?</span>)?(.*?)</a>(?:<span class="advice">(.*?)</span>)?', item)
        for item in items
    ]
    assert len(in_text) > 8
    assert in_text == [unescape(" ".join(filter(None, texts))) for ((*texts,),) in in_page]


def test_findings_come_first(page_and_text):
    page, text = page_and_text
    assert text.index("have a near-duplicate in train") < text.index("| --- |" if "| --- |" in text else "|---|")
    assert text.index("have a near-duplicate in train") < text.index("The files are intact")
    assert page.index("have a near-duplicate in train") < page.index("The files are intact")
    assert page.index("<table") > page.index("have a near-duplicate in train") > page.index('<section id="findings">')
    assert page.index('<section id="findings">') < page.index('<section id="classes">')


def test_files_are_named_as_code(page_and_text):
    page, text = page_and_text
    assert "<code>data/audit/test_without_leaks.csv</code>." in page
    assert "`data/audit/test_without_leaks.csv`." in text
    assert "the file set as <code>audit.ignore</code> in params.yaml" in page
    assert "the file set as `audit.ignore` in params.yaml" in text


def test_every_link_leads_to_a_section(page_and_text):
    page, _ = page_and_text
    links = set(re.findall('href="#([^"]*)"', page))
    assert links == {"findings", "classes", "pairs", "conflict", "oddities", "values", "brightness"}
    assert links <= set(re.findall('id="([^"]*)"', page))


def test_page_asks_for_nothing(page_and_text):
    page, _ = page_and_text
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:)", without_pictures(page))


def test_pages_end_lines_cleanly(page_and_text):
    for page in page_and_text:
        assert not any(line != line.rstrip() for line in page.splitlines())
        assert page.endswith("\n")
        assert not page.endswith("\n\n")


def test_negative_zero_is_not_shown(page_and_text):
    for page in page_and_text:
        assert not re.search(r"-0\.0+\b", without_pictures(page))


def test_tables_of_the_text_are_tables(page_and_text):
    html = MarkdownIt().enable("table").render(page_and_text[1])
    assert html.count("<table>") == html.count("<h2>") + 3
    assert "|" not in html


def test_known_dataset_names_its_source(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(8), make_images(4, seed=1))
    save_manifest(replace(raw.manifest, dataset="cifar10"), raw.dir)
    for page in render(open_shards(raw.dir), tmp_path):
        assert "CIFAR-10" in page
        assert "https://www.cs.toronto.edu/~kriz/cifar.html" in page
        assert "none stated by the authors" in page


@pytest.mark.parametrize(
    ("dtype", "described"), [("uint8", "uint8 (pixels, normalized by the reader)"), ("float16", "float16")]
)
def test_dtype_scheme_and_shards_are_described(dtype, described, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(30), make_images(4, seed=1))
    for page in render(raw, tmp_path, dtype=dtype, scheme="imagenet", samples_per_shard=11):
        assert re.search(rf"[\d.]+ MB, {re.escape(described)}, up to 11 samples each", page)
        assert "transforms.Normalize(mean=(0.4850, 0.4560, 0.4060), std=(0.2290, 0.2240, 0.2250))" in page
        assert raw.manifest.content_sha256 in page


def test_decimals_are_those_of_the_params(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(30))
    for page in render(raw, tmp_path, decimals=7):
        assert "1.0000000" in page
        assert not re.search(r"\b1\.0{8}", page)


def test_class_names_are_escaped(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(16), make_images(8, seed=1), num_classes=8)
    save_manifest(replace(raw.manifest, classes=ODD_NAMES), raw.dir)
    near = [make_pair(("test", index), ("train", index + 1)) for index in range(8)]
    page, text = render(open_shards(raw.dir), tmp_path, near)
    in_page, in_text = html_texts(page), html_texts(MarkdownIt().enable(["table", "strikethrough"]).render(text))
    for name in ODD_NAMES:
        assert in_page.count(name) >= 3  # samples, the table, the choices
        assert in_text.count(name) == 3  # the table of classes, and both images of pairs
    assert "<b>bold" not in page


def test_markdown_is_escaped():
    for name in (*ODD_NAMES, r"\*", "snake_case_name"):
        (shown,) = html_texts(MarkdownIt().enable(["table", "strikethrough"]).renderInline(escape_markdown(name)))
        assert shown == name
    assert escape_markdown("snake_case") == "snake_case"


@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "test")], ids="+".join)
def test_splits_that_are_not_there_are_not_named(splits, tmp_path):
    images = {split: make_images(20, seed=seed) for seed, split in enumerate(splits)}
    near = [make_pair((split, 3), ("train", 1)) for split in splits]
    for page in render(write_raw_set(tmp_path / "raw", **images), tmp_path, near):
        named = set(re.findall(r"\b(val|test)\b", without_pictures(page)))
        assert named == set(splits) - {"train"}


def test_set_without_near_duplicates_has_nothing_to_find(tmp_path):
    page, text = render(write_raw_set(tmp_path / "raw", make_images(20), make_images(9, seed=1)), tmp_path)
    assert 'aria-label="Find pairs"' not in page
    assert "near_duplicates.csv" not in page + text


@pytest.mark.parametrize(
    ("num_pairs", "described", "folded"),
    [
        (20, "20 pairs. The most similar:", "8 pairs in between"),
        (300, "300 pairs, showing 240. The most similar, from as many", "228 of the 288 pairs in between"),
    ],
)
def test_pairs_say_whether_all_are_shown(num_pairs, described, folded, tmp_path):
    images = {"train": make_images(300), "test": make_images(300, seed=1)}
    near = [make_pair(("test", index), ("train", index), index / 1000) for index in range(num_pairs)]
    page, _ = render(write_raw_set(tmp_path / "raw", **images), tmp_path, near)
    assert described in page
    assert f"<summary>{folded}</summary>" in page
    assert "equal labels" not in page[page.index('<section id="pairs">') :].replace("All near-duplicates", "")


def test_galleries_say_where_pairs_with_different_labels_are_counted(page_and_text):
    page, text = page_and_text
    listed = int(re.search(r"All (\d+) pairs are", text)[1])
    (conflicts,) = re.findall(r'"quiet">(\d+) pairs?.*They are counted as leaks and twins too', page)
    equal = re.findall(r'"quiet">(\d+) pairs? with equal labels', page)
    assert len(equal) == 4
    assert int(conflicts) + sum(map(int, equal)) == listed


def test_captions_name_their_figures(page_and_text):
    page, _ = page_and_text
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum("<br>distance 0.245" in caption for caption in captions) == 1
    assert not any(re.search(r"<br>-?[\d.]+$", caption) for caption in captions)
    for name in ("brightness", "contrast"):
        assert sum(bool(re.search(rf"<br>{name} 0\.\d\d\d$", caption)) for caption in captions) >= 6


@pytest.mark.parametrize(
    ("dataset", "title"),
    [("images", "Image dataset"), ("torchvision:SVHN", "torchvision:SVHN"), ("cifar10", "CIFAR-10")],
)
def test_heading_names_the_dataset(dataset, title, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(8))
    save_manifest(replace(raw.manifest, dataset=dataset), raw.dir)
    page, text = render(open_shards(raw.dir), tmp_path)
    assert f"<h1>{title}</h1>" in page
    assert f"<title>{title}: report</title>" in page
    assert text.startswith(f"# {title}\n")


@pytest.mark.parametrize(
    ("side", "body"), [(32, '<body class="exact">'), (64, '<body class="exact">'), (70, '<body style="--most: 87px">')]
)
def test_only_small_images_are_enlarged_to_sharp_pixels(side, body, tmp_path):
    page, _ = render(write_raw_set(tmp_path / "raw", make_images(6, (3, side, side))), tmp_path)
    assert body in page


def test_rankings_are_folded(page_and_text):
    page, _ = page_and_text
    start = page.index('<details class="extremes">')
    folded = page[start : page.index("</details>", start)]
    assert [*re.findall("<h3>(.*?)</h3>", folded)] == ["Darkest", "Brightest", "Lowest contrast", "Highest contrast"]
    assert "<h3>Grey: 1 train</h3>" in page[:start]


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 5, 9), (3, 1, 1)])
def test_any_shape_is_shown(shape, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    pixels[45] = pixels[3]
    page, text = render(write_raw_set(tmp_path / "raw", pixels[:40], pixels[40:], num_classes=7), tmp_path)
    assert page.count("<svg") == 4
    assert page.count('alt="Normalized values of') == 3 * shape[0]
    assert (
        ("only searched for exact duplicates" in page)
        == ("only searched for exact duplicates" in text)
        == (shape[1] < 8)
    )


@pytest.mark.parametrize(("num_train", "num_test", "num_bars"), [(8, 0, 0), (9, 0, 2), (8, 4, 0), (8, 3, 4)])
def test_classes_have_bars_only_where_they_are_unbalanced(num_train, num_test, num_bars, tmp_path):
    images = make_images(13, (1, 8, 8))
    test = {"test": images[-num_test:]} if num_test else {}
    page, _ = render(write_raw_set(tmp_path / "raw", images[:num_train], **test), tmp_path)
    assert page.count('class="bar"') == num_bars
    assert page.count('class="key"') == num_bars / 2


def test_many_classes_are_folded_and_some_shown(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(600, (1, 8, 8)), num_classes=600)
    page, text = render(raw, tmp_path)
    assert "The pictures show 60 of 600 classes." in page
    assert "<summary>Figures of the first 500 of 600 classes</summary>" in page
    assert page.count('class="swatch"') == 500
    assert "The first 100 of 600 classes." in text
    for shown in (page, text):
        assert "The figures of all" in shown
        assert "data/audit/details.json" in shown


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 100, 100)])
def test_page_has_at_most_5_mb(shape, tmp_path):
    rng = np.random.default_rng(0)
    images = {
        split: rng.integers(0, 256, (count, *shape), np.uint8)
        for split, count in (("train", 2000), ("val", 500), ("test", 500))
    }
    raw = write_raw_set(tmp_path / "raw", **images, num_classes=1000)
    names = tuple(f"a class with a rather long name, number {number}" for number in range(1000))
    save_manifest(replace(raw.manifest, classes=names), raw.dir)
    near = [
        make_pair((split, index), (other, index // 2), index / 2000, mirrored=True)
        for split, other in (("val", "train"), ("test", "train"), ("test", "val"), ("test", "test"), ("train", "train"))
        for index in range(1, 500)
    ]
    page, text = render(open_shards(raw.dir), tmp_path, near)
    assert 3_000_000 < len(page.encode()) < 5_000_000
    assert len(text.encode()) < 50_000


def in_browser(test):
    """Mark a test that needs Chromium."""
    for mark in (
        pytest.mark.browser,
        pytest.mark.slow,
        pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
    ):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def page_path(page_and_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(page_and_text[0], encoding="utf-8")
    return path


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]} px, {view[1]}")
def page(request, browser, page_path):
    """The report, open in a browser of some width and colour scheme."""
    browser.open(page_path, *request.param)
    return browser


@pytest.fixture
def open_page(browser, page_path):
    """The report, open in a browser of one width and colour scheme."""
    browser.open(page_path, 1400, "light")
    return browser


def set_choices(page, form, **choices):
    """Choose options of a form as a person does, and return the captions of the cards that are then visible."""
    selector = f"form[aria-label='{form}']"
    for name, value in choices.items():
        page.evaluate(
            f"(select => {{ select.value = {value!r}; select.dispatchEvent(new Event('change', {{bubbles: true}})) }})"
            f"(document.querySelector(`{selector} [name={name}]`))"
        )
    return page.evaluate(
        f"[...document.querySelector(`{selector}`).closest('section').querySelectorAll('.card')]"
        ".filter(card => card.checkVisibility()).map(card => card.innerText)"
    )


@in_browser
def test_page_loads_all_of_itself_and_nothing_else(page, page_path):
    assert page.found("Runtime.consoleAPICalled") == page.found("Runtime.exceptionThrown") == []
    assert page.found("Log.entryAdded") == page.found("Network.loadingFailed") == []
    urls = [request["request"]["url"] for request in page.found("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [page_path.as_uri()]
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    num_images, num_loaded = page.evaluate(
        "[document.images.length, [...document.images].filter(it => it.complete && it.naturalWidth > 0).length]"
    )
    assert num_images == num_loaded > 250


@in_browser
def test_page_fits_its_width(page):
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        page.evaluate(
            "[...document.querySelectorAll('img, svg, figure, p, dl, li, .scroll, form')].filter(it => {"
            "  const box = it.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth + 0.5 })"
            ".map(it => it.outerHTML.slice(0, 80))"
        )
        == []
    )


@in_browser
def test_square_images_are_drawn_square(page):
    sizes = page.evaluate("[...document.images].map(it => it.getBoundingClientRect()).map(it => it.width - it.height)")
    assert max(map(abs, sizes)) < 0.5


@in_browser
def test_page_can_be_read_by_a_screen_reader(open_page):
    assert open_page.evaluate("[...document.images].every(it => it.alt.length > 5)")
    assert open_page.evaluate("[...document.querySelectorAll('svg')].every(it => it.matches('[role=img][aria-label]'))")
    levels = open_page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(it => +it.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@in_browser
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


@in_browser
def test_lines_of_plots_have_their_colours(open_page):
    strokes = open_page.evaluate("[...document.querySelectorAll('polyline')].map(it => getComputedStyle(it).stroke)")
    assert len(set(strokes)) == 5  # blue is also that of train


@in_browser
def test_axe_finds_no_violation(page):
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run().then(it => it.violations.map(v => [v.id, v.nodes.map(n => n.html).slice(0, 3)]))")
    assert found == []


@in_browser
def test_pairs_can_be_chosen_and_sorted(open_page):
    everything = set_choices(open_page, "Find pairs")
    assert len(everything) > 20
    mirrored = set_choices(open_page, "Find pairs", mirrored="yes")
    assert mirrored
    assert all("mirrored" in caption for caption in mirrored)
    leaks = set_choices(open_page, "Find pairs", mirrored="", kind="test-train", sort="distance -1")
    shown = [float(re.search(r"distance (\d\.\d{3})", caption)[1]) for caption in leaks]
    assert len(shown) == 49
    assert shown == sorted(shown, reverse=True)
    assert all("test " in caption and "train " in caption for caption in leaks)
    of_class = set_choices(open_page, "Find pairs", **{"class": "3"})
    assert 0 < len(of_class) < len(leaks)
    assert all("class_3" in caption for caption in of_class)
    count = open_page.evaluate("document.querySelector(`form[aria-label='Find pairs'] output`).value")
    assert count.startswith(f"{len(of_class)} of ")
    differing = set_choices(open_page, "Find pairs", kind="", sort="", labels="different", **{"class": ""})
    assert all(re.match(r"class_\d, class_\d\n", caption) for caption in differing)
    open_page.evaluate("document.querySelector(`form[aria-label='Find pairs'] button`).click()")
    open_page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert set_choices(open_page, "Find pairs") == everything


@in_browser
def test_images_can_be_chosen(open_page):
    of_test = set_choices(open_page, "Find images", split="test")
    assert of_test
    assert all("\ntest " in caption for caption in of_test)
    grey = set_choices(open_page, "Find images", split="", reason="grey")
    assert len(grey) == 1
    assert "\ntrain 7\n" in grey[0]


@in_browser
def test_line_can_be_copied(open_page):
    open_page.evaluate("document.querySelector('.line button').click()")
    assert open_page.evaluate("getSelection().toString()").startswith("transforms.Normalize(mean=(")


@in_browser
def test_page_without_script_shows_all_but_the_choices(browser, page_path):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page_path, 1400, "light")
        visible = browser.evaluate(
            "[...document.querySelectorAll('.find, button, .card')].map(it => [it.localName, it.checkVisibility()])"
        )
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert {name for name, is_visible in visible if is_visible} == {"figure"}


@in_browser
def test_print_leaves_out_what_needs_a_screen(browser, page_path):
    browser.open(page_path, 700, "light")
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        visible = browser.evaluate(
            "[...document.querySelectorAll('nav, .find, button')].some(it => it.checkVisibility())"
        )
        extremes = browser.evaluate("document.querySelector('.extremes .card').checkVisibility()")
        fits = browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
    assert (visible, extremes, fits) == (False, True, True)
