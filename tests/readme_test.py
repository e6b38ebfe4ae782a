"""README.md and the pages of docs/: their code runs, their links lead somewhere.

`docs_test.py` builds the site of them.
"""

import contextlib
import doctest
import io
import re
import warnings
from pathlib import Path

import jax
import pytest
from matplotlib import pyplot, rcdefaults

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "experiments" / "results" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
EXPLAINED = "prove that it is right to within"


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path, kind="python"):
    """The code of a page; that of a notebook is in cells."""
    start = {"python": r"(?:python|\{code-cell\})"}.get(kind, kind)
    return list(re.finditer(rf"^```{start}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))


def marked(pages):
    """Other papers' methods, and pages that take long, are among the slow tests."""
    rooms = ("methods", "guide", "theory")
    slow = [p for p in pages if p.parent.name in rooms or p.name == "get_started.md"]
    return [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if page in slow else [])
        for page in pages
    ]


def without_code(text):
    return re.sub(r"^```.*?^```|`[^`\n]*`|^ {4}.*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path):
    """The relative links and images of a page that lead nowhere."""
    found = []
    for target in LINK.findall(path.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or (anchor and anchor not in anchors(to)):
            found.append(target)
    return found


@pytest.fixture(autouse=True)
def _as_a_reader_runs_it():
    """With JAX's own rules of broadcasting, and figures that nobody sees."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        pyplot.switch_backend("agg")
        yield
    pyplot.close("all")
    rcdefaults()


def run(page):
    """Runs the Python of a page, in order, as one program; returns what it prints."""
    text = page.read_text()
    namespace = {"__name__": "page"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks(page):
            line = text.count("\n", 0, block.start(1))
            source = re.sub(r"^%.*", "", block[1], flags=re.MULTILINE)  # IPython's own commands
            exec(compile("\n" * line + source, str(page), "exec"), namespace)
    return printed.getvalue()


PAGES = [page for page in DOCS if blocks(page)]


@pytest.mark.parametrize("page", marked(PAGES))
def test_python_blocks(page):
    run(page)


@pytest.mark.parametrize("page", marked([p for p in DOCS if blocks(p, "pycon")]))
def test_sessions(page):
    """Blocks of `>>>` print what they say."""
    source = "\n".join(block[1] for block in blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(source, {}, name(page), str(page), 0)
    report = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)


def test_readme_prints_what_it_says():
    (shown,) = blocks(README, "text")
    printed = run(README)
    assert [line.split()[::7] for line in printed.splitlines()] == [
        line.split()[::7] for line in shown[1].splitlines()
    ]
    for mine, theirs in zip(printed.split(), shown[1].split(), strict=True):
        if re.fullmatch(r"[\d.]+(e-\d+)?", theirs):
            # The gap is rounding, which differs from machine to machine.
            assert float(mine) == pytest.approx(float(theirs), rel=0.01, abs=1e-4)
        else:
            assert mine == theirs


def test_pages_with_code():
    assert {name(page) for page in PAGES} >= {
        *("docs/get_started.md", "docs/guide/unitizing.md", "docs/guide/drift.md"),
        *("docs/guide/convert.md", "docs/guide/measures.md"),
    }
    shown = {name(page) for page in DOCS if blocks(page, "pycon")}
    for page in DOCS:
        if page.parent.name in ("theory", "methods") and page.name != "index.md":
            assert name(page) in shown, f"{name(page)} shows nothing that can be checked"


def test_every_method_of_contrib_has_a_page():
    folders = (ROOT / "unitnorm_jax" / "contrib").glob("*/__init__.py")
    methods = {path.parent.name for path in folders}
    for room in ("methods", "api"):
        assert methods <= {page.stem for page in DOCS if page.parent.name == room}
    for method in methods:
        text = (ROOT / "docs" / "methods" / f"{method}.md").read_text()
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == ["Formula", "Paper", "Departures", "Use"]


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links(page):
    assert broken(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[a](#a-b-c) [b](#d) ![c](none.png) [d](page.md#a-b-c) [e](x://y)\n"
    )
    assert broken(page) == ["#d", "none.png"]


def test_readme_is_one_page():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert text.count("<!-- table:") == 1
    assert len(re.findall(r"^\|[-|]+\|$", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 1
    assert not re.search(r"\]\((?!#)\w+:", text)  # links are relative


@pytest.mark.parametrize("page", [README, *DOCS], ids=name)
def test_certificates_are_explained_where_they_come_first(page):
    text = without_code(page.read_text())
    tables = re.compile(r"<!-- table:.*?<!-- end of table -->", re.DOTALL)
    paragraphs = [p for p in tables.sub("", text).split("\n\n") if not p.startswith("#")]
    first = next((p for p in paragraphs if re.search("certif", p, re.IGNORECASE)), None)
    explained = (EXPLAINED, "certificates.md)", "certificate.md)")  # or a link to the page of it
    assert first is None or any(words in " ".join(first.split()) for words in explained)
