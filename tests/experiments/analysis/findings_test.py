"""The answer in words: every number against scipy, and every case that has no test."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from experiments.analysis import report
from experiments.analysis.findings import difference, drift, findings
from experiments.analysis.shift import comparisons
from experiments.common.statistics import Paired
from tests.experiments.handmade import ics_row, make_run

VERSIONS = {"devices": ["cpu"], "cpus": 2, "cpu_model": "a"}


def run(folder, correct, **more):
    norms, seeds = tuple(correct), tuple(range(len(next(iter(correct.values())))))
    return make_run(
        folder / "run",
        norms=norms,
        seeds=seeds,
        correct=lambda norm, seed: correct[norm][seed],
        versions=VERSIONS,
        **more,
    )


def test_two_methods(tmp_path):
    correct = {"bn": [350, 352, 357], "ubn": [353, 351, 352]}
    results = run(tmp_path, correct)
    a, b = (100 * np.array(correct[norm]) / 360 for norm in ("bn", "ubn"))
    test = stats.ttest_rel(b, a)
    low, high = test.confidence_interval()
    assert test.pvalue > 0.05
    lead = (
        f"UnitizedBatchNorm reached {b.mean():.1f} % and BatchNorm {a.mean():.1f} % (difference "
        f"{(b - a).mean():+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, 3 paired seeds: "
        "no difference found). Layers drifted 0.5 times as far, 0.5 times in units of their spread."
    )
    assert findings(results) == (lead, [])
    console = Console(file=(output := io.StringIO()), width=1000)
    report.print_results(results, 20, console)
    assert output.getvalue().splitlines()[-1] == lead


@pytest.mark.parametrize(
    ("bn", "ubn", "words"),
    [
        ([300, 301, 302], [350, 352, 351], "3 paired seeds: more accurate"),
        ([350, 352, 351], [300, 301, 302], "3 paired seeds: less accurate"),
        ([350], [353], "(difference +0.8 points, one seed: nothing is known of chance)"),
        ([350, 351], [353, 354], "the same in each of 2 seeds: no spread to judge by"),
        ([350, 351], [350, 351], "(difference +0.0 points, the same in each of 2 seeds"),
    ],
)
def test_what_is_said_of_a_difference(tmp_path, bn, ubn, words):
    assert words in findings(run(tmp_path, {"bn": bn, "ubn": ubn})).lead


def test_accuracies_that_are_not_finite(tmp_path):
    found = findings(run(tmp_path, {"bn": [350], "ubn": [351]}, row={"accuracy": "nan"}))
    assert found.lead.startswith(
        "UnitizedBatchNorm reached no finite accuracy and BatchNorm no finite accuracy (an "
        "accuracy is not finite: not compared)."
    )


def test_no_norm_is_no_number_of_norms(tmp_path):
    found = findings(run(tmp_path, {"none": [345]}))
    assert found.lead == "The network with no norm reached 95.8 % (one seed)."


def test_several_methods_are_adjusted_and_in_the_order_of_results(tmp_path):
    correct = {
        "bn": [340, 341, 342],
        "ubn": [342, 344, 346],  # p = 0.02 alone
        "gn": [352, 352, 353],
        "ln": [330, 331, 333],
        "none": [340, 343, 341],
    }
    found = findings(run(tmp_path, correct))
    assert found.lead == (
        "GroupNorm reached the best accuracy, 97.9 %; BatchNorm, with which the others are "
        "compared, 94.7 %. Of the 4 others, against BatchNorm: 1 more accurate, 1 less accurate, "
        "2 with no difference found (3 paired seeds)."
    )
    names = [sentence.split(":")[0] for sentence in found.each]
    assert names == ["GroupNorm", "UnitizedBatchNorm", "no norm", "LayerNorm"]
    assert "95 % interval" in found.each[1]
    # No norm has layers to probe; GroupNorm is the third, with a quarter of the first's shift.
    assert "drifted" not in found.each[2]
    assert "Layers drifted 0.25 times as far" in found.each[0]


def test_an_interval_without_zero_and_no_difference_is_explained():
    alone = Paired(3, 0.01, 0.002, 0.02, 0.03)
    assert difference(alone).endswith("3 paired seeds: more accurate")
    assert difference(alone, 0.09).endswith("3 paired seeds: no difference found after adjustment")


def test_drift_is_the_median_over_layers_and_seeds(tmp_path):
    rng = np.random.default_rng(0)
    results = run(
        tmp_path,
        {"bn": [350, 351, 352], "ubn": [350, 351, 352]},
        rows=lambda step, layer, value: ics_row(step, layer, value * rng.uniform(0.5, 2)),
    )
    by_key = {
        norm: {
            (seed, row["layer"], row["step"]): row["value"]
            for seed, rows in results.ics(norm).items()
            for row in rows
        }
        for norm in ("bn", "ubn")
    }
    ratios = {}
    for (seed, layer, step), value in by_key["ubn"].items():
        ratios.setdefault((seed, layer), []).append(value / by_key["bn"][seed, layer, step])
    expected = np.median([np.median(of) for of in ratios.values()])
    found = drift(list(comparisons(results)))
    assert found["ubn", "bn"]["absolute"] == pytest.approx(expected, rel=1e-12)
    assert f"Layers drifted {expected:.2g} times as far" in findings(results).lead


def test_one_method(tmp_path):
    found = findings(run(tmp_path, {"ubn": [350, 352]}))
    assert found == ("UnitizedBatchNorm reached 97.5 % (mean of 2 seeds).", [])
