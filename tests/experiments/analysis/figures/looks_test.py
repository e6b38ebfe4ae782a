"""Looks of methods: unique, the same everywhere, and told apart with any colour vision."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis.figures.looks import COLOURS, dodge, looks
from experiments.config.methods import NORMS

STYLE = Path(__file__).parents[4] / "experiments" / "analysis" / "page" / "style.css"
# Of the eye without one of its three pigments: Machado, Oliveira, Fernandes, "A Physiologically-
# based Model for Simulation of Color Vision Deficiency", IEEE TVCG 15, 2009; severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = XYZ @ np.clip(rgb, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    """As the Web Content Accessibility Guidelines define it; 3 is enough for graphics."""
    low, high = sorted(XYZ[1] @ linear(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def schemes():
    """Paper and series of the page, light and dark."""
    text = STYLE.read_text()
    papers = re.findall(r"--paper: (#\w{6})", text)
    series = re.findall(r"--series-\d: (#\w{6})", text)
    return [(papers[0], series[:8]), (papers[1], series[8:])]


def test_figures_have_the_colours_of_the_light_page():
    assert tuple(schemes()[0][1]) == COLOURS
    assert len(schemes()[1][1]) == len(COLOURS) == 8


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_colours_are_told_apart(scheme, vision):
    paper, series = scheme
    assert min(contrast(colour, paper) for colour in series) >= 3
    seen = [lab(np.array(VISIONS[vision]) @ linear(colour)) for colour in series]
    pairs = itertools.combinations(seen, 2)
    assert min(np.linalg.norm(one - other) for one, other in pairs) > 11


def test_words_of_the_page_stand_out_from_its_paper():
    """By 4.5 to 1, as the guidelines ask for text of any size."""
    text = STYLE.read_text()
    for name in ("ink", "muted", "link"):
        colours = re.findall(rf"--{name}: (#\w{{6}})", text)
        papers = [re.findall(rf"--{paper}: (#\w{{6}})", text) for paper in ("paper", "raised")]
        for scheme, colour in enumerate(colours):
            assert min(contrast(colour, paper[scheme]) for paper in papers) >= 4.5
        assert len(colours) == 2


@pytest.mark.parametrize(
    "names",
    [NORMS, NORMS[::-1], [f"ubn alpha_init={i}" for i in range(16)], ["bn", *NORMS[8:], "ubn a=1"]],
    ids=["all", "reversed", "options", "others"],
)
def test_up_to_16_methods_differ(names):
    found = looks(names)
    assert len({(look.colour, look.dash) for look in found.values()}) == len(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)


def test_a_method_looks_the_same_in_every_run():
    both, more = looks(["bn", "ubn"]), looks(["ubn unit=rms", "kalman", "gn", "bn"])
    assert both["bn"] == more["bn"]
    assert both["ubn"] == more["ubn unit=rms"]
    assert len({look.colour for look in more.values()}) == 4  # Colours first, then dashes.


@pytest.mark.parametrize("count", [1, 2, 12])
def test_marks_of_one_layer_stay_beside_it(count):
    places = [dodge(i, count) for i in range(count)]
    assert max(map(abs, places)) < 0.5
    assert np.allclose(np.diff(places), 0.7 / count)
