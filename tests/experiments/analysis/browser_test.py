"""The pages as people meet them: in a browser, on a phone and a screen, light, dark, on paper."""

import itertools
import os
import shutil

import pytest

from experiments.analysis import page
from experiments.analysis.compare import combine, make_record, tables
from experiments.analysis.compare.page import comparison_page
from experiments.config.experiment import NormConfig
from tests.experiments.handmade import ics_row, make_run

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
MANY = (
    "bn",
    "ubn",
    "gn",
    "none",
    "ln",
    "in",
    "rms",
    "bcn",
    "bcn-micro",
    "normprop",
    "ic",
    "kalman",
)
LAYERS = tuple(f"block_{i // 2}/norm_{i % 2}" for i in range(6))
A4 = {"width": 688, "height": 1016}  # 210 x 297 mm without margins of 14 mm, at 96 per inch.
KINDS = ("run", "many", "compare")

# Every two pieces of text that share more than a pixel or two, of all that is shown.
OVER_ONE_ANOTHER = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    if (!node.textContent.trim() || getComputedStyle(node.parentElement).display === 'none')
      continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width > 0 && box.height > 0) found.push([box, node.textContent.trim(), node]);
  }
  found.sort((one, other) => one[0].top - other[0].top);
  const pairs = [];
  for (let i = 0; i < found.length; i++)
    for (let j = i + 1; j < found.length && found[j][0].top < found[i][0].bottom - 2; j++) {
      const [a, b] = [found[i][0], found[j][0]];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (found[i][2] !== found[j][2] && across > 2 && down > 2)
        pairs.push(`${found[i][1]} | ${found[j][1]}`);
    }
  return [found.length, pairs];
}"""
# What reaches out of the page and is in no box that scrolls.
CUT = """() => [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && !e.classList.contains('skip') &&
          e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => `${e.tagName} ${e.textContent.slice(0, 60)}`)"""
# Boxes that scroll, and whether words say so.
BOXES = """() => [...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth > e.clientWidth,
  getComputedStyle(e, '::before').visibility === 'visible', getComputedStyle(e).overflowX])"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; the group dev has it"
    )
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(CHROMIUM)} is installed; .ci/run installs Chromium")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run with an open certificate, one of many methods, and a comparison, as files."""

    def rows(step, layer, value):
        open_at_end = {"certified_lower": value * 0.75, "exact": False} if step == 20 else {}
        return ics_row(step, layer, value, **open_at_end)

    def correct(norm, seed):
        return 340 + MANY.index(norm) + 3 * seed * (norm != "bn")

    folder = tmp_path_factory.mktemp("pages")
    run = make_run(folder / "run", seeds=(0, 1, 2), rows=rows, correct=correct)
    rms = NormConfig(unit="rms", alpha_init=0.25)
    other = make_run(folder / "rms", norms=("ubn",), seeds=(0, 1, 2), norm=rms, correct=correct)
    many = make_run(folder / "many", norms=MANY, layers=LAYERS, correct=correct)
    compared = combine([run.folder, other.folder])
    record = make_record(compared, "")
    path = folder / "compare.html"
    path.write_text(comparison_page(compared, record, tables(record)), encoding="utf-8")
    return {"run": page.write_page(run), "many": page.write_page(many), "compare": path}


@pytest.fixture
def opened(browser, pages, request):
    """Open a page; afterwards, fail if it said or asked for anything."""
    contexts, heard = [], []

    def open_page(kind, width=1280, height=900, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        shown = context.new_page()
        address = pages[kind].as_uri()
        shown.on("console", lambda message: heard.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: heard.append(f"error: {error}"))
        shown.on(
            "request",
            lambda asked: heard.append(asked.url) if asked.url != address else None,
        )
        shown.goto(address)
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_or_covered(opened, kind, width, scheme):
    shown = opened(kind, width, scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(CUT) == []
    count, pairs = shown.evaluate(OVER_ONE_ANOTHER)
    assert count > 200
    assert pairs == []
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 23, 27)"}[scheme]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wider_than_a_phone_scrolls_and_says_so(opened, kind):
    shown = opened(kind, 390)
    boxes = shown.evaluate(BOXES)
    assert sum(wide for wide, _, _ in boxes) > 5
    assert all(wide == said and how == "auto" for wide, said, how in boxes)
    first = shown.locator(".scroll").first
    first.focus()
    shown.keyboard.press("ArrowRight")
    shown.wait_for_function("document.querySelector('.scroll').scrollLeft > 0")


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_keyboard_and_screen_reader(opened, kind):
    shown = opened(kind)
    tops = []
    while not tops or shown.evaluate("document.activeElement !== document.body"):
        shown.keyboard.press("Tab")
        tops.append(shown.evaluate("document.activeElement.getBoundingClientRect().top + scrollY"))
        if len(tops) == 1:  # The skip link, which is seen once it has the focus.
            assert shown.evaluate("document.activeElement.textContent") == "To what was found"
    stops = tops[1:-1]
    assert len(stops) > 15
    assert all(below >= above - 1 for above, below in itertools.pairwise(stops))
    told = shown.locator("main").aria_snapshot().splitlines()
    assert told[0].strip().startswith("- main")
    assert "What was found" in told[1]
    levels = shown.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("kind", KINDS)
def test_a4(opened, kind):
    """Nothing is wider than the sheet, no figure higher, and no words stand over others."""
    shown = opened(kind, **A4, scheme="dark")
    shown.emulate_media(media="print")
    assert shown.evaluate("document.documentElement.scrollWidth") <= A4["width"]
    assert not any(wide for wide, _, _ in shown.evaluate(BOXES))
    heights = shown.evaluate(
        "[...document.querySelectorAll('figure')].map(e => e.getBoundingClientRect().height)"
    )
    assert max(heights) < A4["height"]
    assert shown.evaluate(OVER_ONE_ANOTHER)[1] == []
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.pdf(format="A4").startswith(b"%PDF")


def test_columns_are_explained_on_hover_and_in_the_legend(opened):
    shown = opened("run")
    for section in ("shift", "bounds", "certificates"):
        named = shown.locator(f"#{section} thead th").all_inner_texts()
        said = shown.locator(f"#{section} thead th abbr")
        assert set(named) - {"layer", "method", "seed"} == set(said.all_inner_texts())
        told = shown.locator(f"#{section} .legend dd").all_inner_texts()
        for abbreviation in said.all():
            assert abbreviation.get_attribute("title") in told
