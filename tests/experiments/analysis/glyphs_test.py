"""Any name can be drawn, without a warning (which is an error here)."""

import io

import pytest
from matplotlib.figure import Figure

from experiments.analysis.figures import style
from experiments.analysis.glyphs import drawable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é", "plain é"),
        ("$x_1$ costs $5", "$x_1$ costs $5"),
        ("猫", "\\u732b"),
        ("🦜", "\\U0001f99c"),
        ("\udcff", "\\udcff"),
    ],
)
def test_any_name_is_drawn(name, shown):
    figure = Figure()
    text = figure.suptitle(drawable(name))
    figure.savefig(io.BytesIO())
    assert text._preprocess_math(text.get_text()) == (shown, False)


def test_titles_of_figures_can_be_drawn():
    assert style.cut("runs/猫 $x$", 20) == "runs/\\u732b \\$x\\$"
    assert style.cut("encoder/layer_11", 9) == "enc…er_11"
