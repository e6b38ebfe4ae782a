"""The site that `make docs` builds: strictly, with all outputs, and asking nothing of any host."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.experiments.analysis.browser_test import CHROMIUM

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.slow  # Runs all notebooks.
# What a browser fetches by itself: not links, which wait for a click.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\bsrc=\"((?:https?:)?//[^\"]*)"
    r"|<link\b[^>]*\bhref=\"((?:https?:)?//[^\"]*)|url\(['\"]?((?:https?:)?//[^)]*)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "html"
    options = ("--fail-on-warning", "--keep-going", "-q", "-E", "-b", "html")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def test_every_page_is_built(site):
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert len(pages) > 45
    assert {path for path in pages if not (site / path).is_file()} == set()


def test_nothing_is_fetched_from_a_host(site):
    files = [p for p in site.rglob("*") if p.suffix in (".html", ".css")]
    found = {str(p): FETCHED.findall(p.read_text()) for p in files}
    assert {name: urls for name, urls in found.items() if urls} == {}
    assert FETCHED.findall('<script async src="//a.b/c.js">')
    assert FETCHED.findall('<link rel="stylesheet" href="https://a.b">')


def test_formulas_are_mathml_in_a_font_of_the_site(site):
    page = (site / "theory" / "unitized.html").read_text()
    assert page.count("<math") > 20
    assert "$" not in re.sub(r"<[^>]*>", "", page.split("<article")[1].split("</article>")[0])
    assert (site / "_static" / "STIXTwoMath-Regular.ttf").stat().st_size > 100_000


def test_outputs_and_figures_are_shown(site):
    for name, figures in (("get_started", 1), ("guide/unitizing", 3), ("guide/drift", 2)):
        page = (site / f"{name}.html").read_text()
        assert page.count('class="cell_output') >= figures
        assert len(re.findall(r"<img ", page)) >= figures, name


def test_search_is_offline(site):
    index = (site / "searchindex.js").read_text()
    assert "unitized_upper_bound" in index


def test_pages_in_a_browser_ask_for_nothing(site):
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    asked, errors = [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in ("index", "get_started", "theory/unitized", "api/probe"):
            page.goto((site / f"{name}.html").as_uri())
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            for name in ("index", "guide/unitizing", "theory/layer", "methods/index", "benchmarks"):
                page.goto((site / f"{name}.html").as_uri())
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} is {wide} px wide on a screen of {width}"
        page.goto((site / "search.html").as_uri() + "?q=certificate")
        page.wait_for_selector("#search-results li", timeout=20_000)
        browser.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert errors == []
