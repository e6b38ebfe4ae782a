"""Any name can be drawn, without a warning (which is an error here)."""

import io

import pytest
from matplotlib.figure import Figure

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
