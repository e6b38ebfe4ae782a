"""Every method against every other: the numbers against scipy, the marks by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.analysis.compare import combine, make_record, tables
from experiments.analysis.compare.pairs import pairs_table
from experiments.common.statistics import holm
from experiments.config.experiment import ModelConfig
from tests.experiments.handmade import ics_row, make_run

CORRECT = {
    "bn": [340, 342, 341],
    "ubn": [341, 345, 343],
    "gn": [352, 353, 352],
    "none": [340, 342, 341],
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    run = make_run(
        tmp_path_factory.mktemp("pairs") / "run",
        norms=tuple(CORRECT),
        seeds=(0, 1, 2),
        correct=lambda norm, seed: CORRECT[norm][seed],
    )
    return make_record(combine([run.folder]), "")


def rows(record):
    table = pairs_table(record)
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


def test_against_scipy(record):
    found = rows(record)
    names = {"bn": "BatchNorm", "ubn": "UnitizedBatchNorm", "gn": "GroupNorm", "none": "no norm"}
    pairs = list(itertools.combinations(CORRECT, 2))
    assert [(row["against"], row["method"]) for row in found] == [
        (names[one], names[other]) for one, other in pairs
    ]
    accuracy = {norm: np.array(correct) / 360 for norm, correct in CORRECT.items()}
    same = ("bn", "none")
    tests = {p: stats.ttest_rel(accuracy[p[1]], accuracy[p[0]]) for p in pairs if p != same}
    adjusted = dict(zip(tests, holm([test.pvalue for test in tests.values()]), strict=True))
    for pair, row in zip(pairs, found, strict=True):
        assert row["difference"] == pytest.approx(np.mean(accuracy[pair[1]] - accuracy[pair[0]]))
        if pair == same:
            assert row["found"] == "the same in each of 3 seeds: no spread to judge by"
            continue
        assert row["p"] == pytest.approx(tests[pair].pvalue)
        assert row["p (Holm)"] == pytest.approx(adjusted[pair])
        assert row["95 % interval"] == pytest.approx(tuple(tests[pair].confidence_interval()))
        words = "no difference found"
        if adjusted[pair] < 0.05:
            words = "more accurate" if row["difference"] > 0 else "less accurate"
        assert row["found"] == words
    assert {row["found"] for row in found} > {"more accurate", "no difference found"}


def test_drift_and_what_was_not_probed(record):
    found = {(row["method"], row["against"]): row for row in rows(record)}
    row = found["GroupNorm", "UnitizedBatchNorm"]
    assert (row["layers compared"], row["drift"], row["drift, relative"]) == ("3", 0.5, 0.5)
    row = found["no norm", "BatchNorm"]
    assert row["layers compared"] == "no norm not probed"
    assert np.isnan(row["drift"])


def test_two_methods_have_their_only_pair_in_the_results(record):
    assert "pairs" in tables(record)
    assert "pairs" not in tables({**record, "arms": record["arms"][:2]})


def test_layers_of_other_sizes_are_not_compared(tmp_path):
    """Nor are those that one of the networks has not; the comparison says how many."""

    def narrow(step, layer, value):
        return ics_row(step, layer, value, **({"d": 8} if layer == "head_norm" else {}))

    first = make_run(tmp_path / "a", norms=("bn",))
    layers = ("stem_norm", "head_norm", "another_norm")
    wide = ModelConfig(widths=(8, 8, 8))
    second = make_run(tmp_path / "b", norms=("bn",), layers=layers, rows=narrow, model=wide)
    compared = combine([first.folder, second.folder], vary=["model.widths"])
    (note,) = compared.notes
    assert "3 of 4 layers are not compared" in note
    record = make_record(compared, "")
    assert {layer["layer"] for layer in record["arms"][1]["shift"]} == {"stem_norm"}
    (row,) = rows(record)
    assert row["layers compared"] == "1 of 4"
