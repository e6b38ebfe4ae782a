"""What all figures share."""

import itertools

import pytest

from experiments.analysis.figures import style


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((0.9, 1.45), [1, 1.2, 1.4]),
        ((0.91, 1.43), [1, 1.1, 1.2, 1.3, 1.4]),
        ((0.98, 1.02), [0.98, 1, 1.02]),
        ((1e-4, 2), [1e-4, 1e-3, 0.01, 0.1, 1]),
        ((2, 40), [2, 5, 10, 20]),
    ],
)
def test_logarithmic_axes_have_plain_labels(limits, expected):
    axis = style.new_figure(2, 2).subplots()
    axis.set(yscale="log", ylim=limits)
    style.plain_log(axis)
    ticks = axis.get_yticks()
    assert set(expected) <= {round(float(tick), 10) for tick in ticks}
    labels = [axis.yaxis.get_major_formatter()(tick, 0) for tick in ticks]
    assert len(set(labels)) == len(labels) >= 3
    assert not any("$" in name for name in labels)
    axis.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axis.get_yticklabels()]
    assert all(below.y1 < above.y0 for below, above in itertools.pairwise(boxes))
