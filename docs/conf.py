"""Sphinx: `make docs` builds the site from these pages; the built pages ask nothing of any host."""

import os
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ["PYTHONPATH"] = str(HERE.parent)  # Notebooks run in their folders.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a notebook's time is compilation: as in tests/conftest.py.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import unitnorm_jax  # noqa: E402

project = "unitnorm_jax"
author = "The unitnorm_jax authors"
copyright = author
release = version = unitnorm_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = False

# Pages are Markdown; those with a kernel are notebooks, run at each build.
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

# Docstrings are Google sections; the text in single backquotes is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # Shapes stand in the docstrings' words.
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = "unitnorm_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # It fetches pages, which a browser does not do from files.
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_theme_options = {"top_of_page_buttons": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"


def _mathml(formula: str, display: str) -> str:
    """Return MathML; a slash and a bar have no space around them, as in TeX."""
    return re.sub(
        r"<mo(?: [^>]*)?>(/|\||&#x0002F;|&#x0007C;|&#x02223;)</mo>",
        r'<mo lspace="0" rspace="0" stretchy="false">\1</mo>',
        convert(formula, display=display),
    )


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _copy_font(app: Sphinx, error: Exception | None) -> None:
    """Put the font of formulas beside the pages: STIX Two Math (Open Font License), of ziamath."""
    if error is None and app.builder.format == "html":
        font = files("ziamath.fonts") / "STIXTwoMath-Regular.ttf"
        shutil.copyfile(str(font), Path(app.outdir) / "_static" / "STIXTwoMath-Regular.ttf")


def _escape(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In docstrings |x| is a norm and *shape any axes, not markup of reStructuredText."""
    block: int | None = None  # The indentation that a literal block began at.
    inside = False  # Of ``code``, which may go on in the next line.
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is not None or line.lstrip().startswith((">>>", "...")):
            continue
        parts = line.split("``") if line.strip() else []
        for k, part in enumerate(parts):
            if inside == bool(k % 2):
                parts[k] = re.sub(r"(?<![\\*])([|]|\*(?=[a-z]))", r"\\\1", part)
        inside = bool(parts) and inside != (len(parts) % 2 == 0)
        lines[i] = "``".join(parts) if parts else line
        if line.rstrip().endswith("::"):
            block = indent


def _no_type(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In the docstring of an attribute nothing before a colon is its type, as napoleon thinks."""
    if kind in ("attribute", "property", "data"):
        lines.insert(0, "")


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which browsers show without a script."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.connect("autodoc-process-docstring", _no_type, priority=400)  # Before napoleon.
    app.connect("autodoc-process-docstring", _escape)
    app.connect("build-finished", _copy_font)
