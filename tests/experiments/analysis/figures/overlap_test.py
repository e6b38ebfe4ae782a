"""No word of a figure stands over another or is cut, with 1 to 12 methods and 1 to 110 layers."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.figures import differences_figure, shift_figure
from experiments.analysis.figures import curves, ics, panels
from experiments.config.experiment import NormConfig
from tests.experiments.handmade import ics_row, make_run

NORMS = (
    *("bn", "ubn", "gn", "none", "ln", "in", "rms", "bcn", "bcn-micro+ws", "normprop"),
    *("conv-relu-ic", "kalman-published"),
)
SIZES = [(1, 1), (1, 110), (2, 3), (5, 18), (12, 3), (12, 110)]  # Methods, layers.


def words(figure):
    """The boxes of all words that are drawn, in pixels, and what they say."""
    figure.draw_without_rendering()  # Once before, so that the layout is final.
    drawn = []
    draw = Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        draw(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    return [(text.get_text(), text.get_window_extent()) for text in dict.fromkeys(drawn)]


def check(figure):
    found = words(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for name, box in found:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{name!r} is cut"
    for (one, a), (other, b) in itertools.combinations(found, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{one!r} stands over {other!r}"
    return found


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def results(request, tmp_path_factory):
    methods, count = request.param
    rng = np.random.default_rng(0)
    layers = tuple(f"block_{i // 2}/norm_{i % 2}" for i in range(count))
    return make_run(
        tmp_path_factory.mktemp("many") / "run",
        norms=NORMS[:methods],
        layers=layers,
        norm=NormConfig(unit="rms", alpha_init=0.25, bessel_correction=True),
        rows=lambda *row: ics_row(*row[:2], row[2] * 10 ** rng.uniform(-1, 1)),
        correct=lambda norm, seed: 330 + 2 * NORMS.index(norm) + 3 * seed % 5,
    )


def test_figures_of_a_run(results, tmp_path):
    names = results.labelled(results.by_result)
    found = [text for text, _ in check(curves.curves_figure(results))]
    assert [text.replace("\n", " ") for text in found if text.replace("\n", " ") in names] == names
    for quantity in ("relative", "absolute"):
        check(ics.distances_figure(results, quantity))
    check(ics.bounds_figure(results))
    if curves.has_alpha(results.runs):
        check(curves.alphas_figure(results))
    if len(results.probed()) > 1:
        check(ics.ratios_figure(results))
        curves.plot_curves(results, tmp_path / "curves.png")


def test_figures_of_a_comparison(results):
    record = make_record(combine([results.folder]), "")
    check(shift_figure(record))
    if len(record["arms"]) > 1:
        check(differences_figure(record))


def test_marks_of_a_layer_stay_nearer_to_it_than_to_the_next(results):
    """Where each layer has a tick of its own; lines, which are not moved, join many."""
    axis = ics.bounds_figure(results).axes[0]
    count = len(panels.shown_layers(results))
    for line in axis.get_lines():
        x = np.asarray(line.get_xdata(), float)
        if len(x) == count:
            assert np.abs(x - np.arange(count)).max() < 0.5


def test_long_names_of_layers_and_methods(tmp_path):
    layers = tuple(f"encoder/layer_{i}/self_attention/output/batch_normalization" for i in range(9))
    results = make_run(
        tmp_path / "run", norms=("bn+enorm", "ic-conv-relu", "kalman-published"), layers=layers
    )
    for figure in (
        *(curves.curves_figure(results), ics.ratios_figure(results)),
        *(ics.distances_figure(results, "absolute"), ics.bounds_figure(results)),
        shift_figure(make_record(combine([results.folder]), "")),
    ):
        check(figure)
