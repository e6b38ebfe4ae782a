"""The table and figure of accuracies on corrupted images."""

import json

import numpy as np
import pytest

from experiments.analysis.corruptions import corruption_table
from experiments.analysis.figures.corruptions import corruptions_figure
from experiments.common.table import to_json
from tests.experiments.analysis.figures.overlap_test import check

CASES = [("clean", 0), *((name, s) for name in ("contrast", "jpeg") for s in (1, 2))]


def make_record(seeds=(0, 1)):
    """Correct of 100 images: 90, less 10 per severity; recalibrated 5 more; seed 1 has 2 more."""
    rows = []
    for norm in ("bn", "none"):
        for seed in seeds:
            for name, severity in CASES:
                for statistics in ("training", "recalibrated")[: 2 if norm == "bn" else 1]:
                    correct = 90 - 10 * severity + 5 * (statistics != "training") + 2 * seed
                    row = {"norm": norm, "seed": seed, "corruption": name, "severity": severity}
                    correct -= 7 * seed * (norm == "none")
                    rows.append(row | {"statistics": statistics, "correct": correct, "images": 100})
    labels = {"bn": "BatchNorm", "none": "no norm"}
    return {"corruptions": rows, "labels": labels, "data": {"name": "images"}}


def test_table():
    first, second, third = json.loads(to_json(corruption_table(make_record())))["rows"]
    assert (first["method"], first["statistics"]) == ("BatchNorm", "of training")
    assert first["clean (mean)"] == pytest.approx(91)
    assert first["corrupted (mean)"] == pytest.approx(76)
    assert first["corrupted (std)"] == pytest.approx(2 / np.sqrt(2))
    assert first["minus the first"] is None
    assert second["statistics"] == "of these images"
    assert second["minus the first"] == pytest.approx(5)
    # Differences of 0 and -7: -3.5 +- 12.706 * 3.5.
    assert third["minus the first"] == pytest.approx(-3.5)
    assert third["95 % interval (low)"] == pytest.approx(-3.5 - 12.7062 * 3.5, rel=1e-4)
    assert third["jpeg"] == third["contrast"] == pytest.approx(72.5)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_figure(seeds):
    figure = corruptions_figure(make_record(seeds))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["contrast", "jpeg"]
    line = figure.axes[0].containers[0].lines[0]
    expected = np.array([90.0, 80.0, 70.0]) + 2 * np.mean(seeds)
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)
    check(figure)
