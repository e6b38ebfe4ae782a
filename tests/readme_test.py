"""README.md and the pages of docs/: their Python runs, their links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "experiments" / "results" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
EXPLAINED = "prove that it is right to within"


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path):
    return list(re.finditer(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))


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


@pytest.mark.parametrize("page", [p for p in (README, *DOCS) if blocks(p)], ids=name)
def test_python_blocks(page):
    """In order, as one program."""
    text = page.read_text()
    namespace = {"__name__": "page"}
    for block in blocks(page):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(page), "exec"), namespace)


def test_pages_with_python():
    assert {name(page) for page in (README, *DOCS) if blocks(page)} >= {
        *("README.md", "docs/layer.md", "docs/probe.md"),
    }


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
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 1
    assert {page.name for page in DOCS} <= {Path(link).name for link in LINK.findall(text)}


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_pages_end_with_links(page):
    last = page.read_text().rpartition("\n## ")[2]
    assert last.startswith("See also\n")
    assert "../README.md" in LINK.findall(last)


@pytest.mark.parametrize("page", [README, *DOCS], ids=name)
def test_certificates_are_explained_where_they_come_first(page):
    text = without_code(page.read_text())
    tables = re.compile(r"<!-- table:.*?<!-- end of table -->", re.DOTALL)
    paragraphs = tables.sub("", text).split("\n\n")
    first = next((p for p in paragraphs if re.search("certif", p, re.IGNORECASE)), None)
    assert first is None or EXPLAINED in " ".join(first.split())
