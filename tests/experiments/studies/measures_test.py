"""The study of measures: its statistics against scipy, and its command on tiny runs."""

import json

import numpy as np
import pytest
from scipy import stats

from experiments.studies.measures import __main__ as command
from experiments.studies.measures import summary
from experiments.studies.measures.config import Case, Cell, MeasuresConfig
from experiments.studies.measures.correlations import (
    against_accuracy,
    agreement,
    spearman,
    with_interval,
)
from experiments.studies.measures.figure import correlations_figure
from tests.experiments.analysis.figures.overlap_test import check

RNG = np.random.default_rng(0)


def test_spearman_is_scipys_also_with_ties_and_gaps():
    x, y = RNG.integers(0, 9, (2, 60)).astype(float)
    x[3], y[8] = np.nan, np.inf
    kept = np.isfinite(x) & np.isfinite(y)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x[kept], y[kept]).statistic)
    assert np.isnan(spearman(np.ones(9), x[:9]))
    assert np.isnan(spearman(np.full(9, np.nan), x[:9]))


def test_interval_is_near_that_of_fieller():
    """Of normal pairs: in Fisher's z the variance of a rank correlation is 1.06 / (n - 3)."""
    x, noise = RNG.normal(size=(2, 400))
    y = x + noise
    value, low, high = with_interval(lambda r: spearman(x[r], y[r]), 400, 500)
    assert value == pytest.approx(stats.spearmanr(x, y).statistic)
    half = 1.96 * np.sqrt(1.06 / 397)
    expected = np.tanh(np.arctanh(value) + np.array([-half, half]))
    np.testing.assert_allclose([low, high], expected, atol=0.015)


def test_agreement_within_and_across():
    """Layers differ in size; within one layer at one time the measures rank the other way."""
    runs, times, layers = 30, 3, 4
    noise = RNG.normal(size=(runs, times, layers))
    scale = 100.0 * np.arange(layers)[None, None, :] + 1e4 * np.arange(times)[None, :, None]
    found = agreement(scale + noise, scale - noise, 50)
    assert found["pooled"][0] > 0.9
    np.testing.assert_allclose(found["both"], -1, atol=1e-5)
    one = stats.spearmanr((scale + noise)[:, :, 1].ravel(), (scale - noise)[:, :, 1].ravel())
    assert found["by_layer"][1] == pytest.approx(one.statistic)
    assert len(found["by_time"]) == times
    low, high = found["layer"][1:]
    assert low <= found["layer"][0] <= high


def test_accuracy_within_and_across():
    """Recipes with more drift are better, methods worse; of equal runs, that with more is worse."""
    methods, recipes, seeds = np.indices((3, 4, 6)).reshape(3, -1)
    off = np.linspace(-0.4, 0.4, 6)[seeds]
    drift = 8.0**recipes * 2.0**methods * (1 + 0.2 * off)
    accuracy = 0.4 + 0.1 * recipes - 0.02 * methods - 0.005 * off
    found = against_accuracy(drift, accuracy, methods, recipes, 50)
    assert found["methods"][0] > 0.8
    assert found["recipes"][0] < -0.8
    assert found["both"][0] == pytest.approx(-1, abs=0.1)
    turned = against_accuracy(drift - 1e5, accuracy, methods, recipes, 2)  # negative numbers
    assert turned["both"][0] < -0.5
    assert found["all"][0] == pytest.approx(stats.spearmanr(drift, accuracy).statistic)
    for name, groups in (("methods", methods), ("recipes", recipes)):
        parts = [
            stats.spearmanr(drift[groups == g], accuracy[groups == g]).statistic
            for g in np.unique(groups)
        ]
        assert found[name][0] == pytest.approx(
            np.tanh(np.mean(np.arctanh(np.clip(parts, -1 + 1e-6, 1 - 1e-6)))), abs=1e-3
        )


def rows():
    """Two methods, three seeds; the measures are powers of the distance."""
    found = []
    for k, case in enumerate(
        Case(Cell("digits", method, 0.1, 64), seed)
        for method in ("bn", "none")
        for seed in range(3)
    ):
        em = (1.0 + k + np.arange(8).reshape(2, 4)).tolist()
        measured = dict.fromkeys(("em", "em, relative", "MMD"), em)
        measured["KMM sample size"] = (-np.array(em)).tolist()
        measured["convolutions, cosine"] = [0.5 - 0.1 * (k < 3)] * 2
        measured["convolutions, L2 / norm"] = [1.0 + case.seed + (k < 3)] * 2
        measured["open"] = [0, 0]
        row = {**case.cell._asdict(), "seed": case.seed, "finite": True, "accuracy": 0.9 - 0.01 * k}
        found.append({**row, "measured": measured})
    dead = {**found[0], "accuracy": 0.1}
    return [*found, dead, {**found[0], "finite": False, "measured": {}}]


def test_tables_and_figure():
    record = json.loads(json.dumps(summary.summarize(rows(), 20)))
    assert len(record["runs"]) == 8
    assert record["open"] == 0
    measures, accuracy, gradients = summary.tables(record).values()
    assert "6 runs on digits" in measures.caption
    names = [line[1] for line in measures.rows]
    assert names == ["MMD", "KMM samples lost"]
    for line in measures.rows:
        assert [cell[0] for cell in line[2:]] == pytest.approx([1] * 4, abs=1e-5)
    assert [line[2][0] for line in accuracy.rows] == pytest.approx([-1] * 4)
    assert gradients.rows[0][:4] == ("digits", "BatchNorm", 3, 3)
    assert gradients.rows[0][4] == pytest.approx((3, 1))
    assert gradients.rows[0][5][0] == pytest.approx(1)
    assert gradients.rows[0][7][0] == pytest.approx(-0.1)
    check(correlations_figure(record))


def test_options():
    config = MeasuresConfig()
    assert len(config.cases()) == 2 * 4 * 5 * 5
    assert len({case.name for case in config.cases()}) == 200
    assert [case.seed for case in config.cases()[:20]] == [0] * 20
    with pytest.raises(
        ValueError, match=r"`images` .=512. gives 4 updates of 128 .*6 are measured"
    ):
        MeasuresConfig(images=512)
    with pytest.raises(ValueError, match=r"`methods` \(='gn'\) is unknown"):
        MeasuresConfig(methods=("gn",))


@pytest.mark.slow
def test_command(tmp_path, capsys):
    options = "--methods bn none --datasets digits --seeds 0 1 --learning-rates 0.1 --probes 2"
    small = "--batch-sizes 64 --train-images 512 --images 8192 --widths 8 --resamples 5"
    words = [*options.split(), *small.split(), "--out", str(tmp_path / "out")]
    assert command.main([*words, "--minutes", "1e-9"]) == 1
    assert "no run is in" in capsys.readouterr().err
    assert command.main([*words, "--record", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "measures.json").read_text())
    assert record == json.loads((tmp_path / "out" / "measures.json").read_text())
    assert len(record["runs"]) == 4
    (run,) = tmp_path.glob("out/digits-bn-*-seed0.json")
    measured = json.loads(run.read_text())["measured"]
    assert np.shape(measured["em"]) == np.shape(measured["gradient L2"])
    assert np.isfinite(measured["em"]).all()
    assert np.isfinite(measured["estimation, mean"]).all()
    assert len(measured["convolutions, cosine"]) == 2
    before = run.stat().st_mtime_ns
    assert command.main(words) == 0
    assert run.stat().st_mtime_ns == before
