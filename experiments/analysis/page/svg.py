"""Figures as part of a page: inline SVG in the page's own colours and fonts."""

import io
import re
import xml.etree.ElementTree as ET

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments.analysis.figures.looks import COLOURS
from experiments.analysis.figures.style import GRID, INK, MUTED, PAPER

# The page gives these variables a value for light and one for dark screens.
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "none",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(COLOURS)},
}
_HREF = "{http://www.w3.org/1999/xlink}href"


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return ``figure`` as an SVG element to put into a page.

    Text stays text; places are rounded to a hundredth of a point. Colours become variables of the
    page (``VARIABLES``). Identifiers that nothing refers to are dropped and the others begin with
    ``name``, so that several fit into one page.

    Args:
        figure: Drawn in the style of ``experiments.analysis.figures.curves``.
        name: Of the figure, unique in the page.
        description: What a screen reader says of it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=nothing, facecolor="none")
    text = buffer.getvalue()
    used = set(re.findall(r"(?:url\(|xlink:href=\")#([^)\"]+)", text))
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}style", "}metadata"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]  # In HTML, svg needs no namespace.
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")
        if _HREF in element.attrib:
            element.set("href", f"#{name}-{element.attrib.pop(_HREF)[1:]}")
        for key, value in element.attrib.items():
            element.set(key, _rewrite(value, name))
    for key in ("width", "height", "version"):  # viewBox stays; the page sets the size.
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return Markup(ET.tostring(root, encoding="unicode"))


_DIGITS = re.compile(r"(\d+\.\d\d)\d+")


def _rewrite(value: str, name: str) -> str:
    value = _DIGITS.sub(r"\1", value)
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, variable)
    return value.replace("url(#", f"url(#{name}-")
