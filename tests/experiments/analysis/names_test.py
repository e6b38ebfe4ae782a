"""One name a method, wherever people read it; the machine's name wherever a file holds it."""

import pytest

from experiments.analysis import names
from experiments.analysis.compare import combine, make_record, tables
from experiments.analysis.results import read_results
from experiments.config.experiment import NormConfig, TrainConfig
from experiments.config.methods import CONVS, NORMS
from tests.experiments.handmade import make_run


def test_every_norm_has_a_name_and_no_two_share_it():
    found = {names.label(norm) for norm in (*NORMS, *CONVS)}
    assert len(found) == len(NORMS) + len(CONVS)
    assert not found & {*NORMS, *CONVS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bn", "BatchNorm"),
        ("ubn bessel_correction=True unit=rms", "UnitizedBatchNorm (rms, bessel_correction)"),
        ("bn optim.learning_rate=0.1", "BatchNorm (optim.learning_rate=0.1)"),
        ("kalman-published gain=0.5", "BatchKalmanNorm (as published, gain=0.5)"),
        ("gn+ws", "GroupNorm + weight standardization"),
        ("of another version", "of (another, version)"),
    ],
)
def test_label(name, expected):
    assert names.label(name) == expected


def test_a_run_tells_options_that_one_method_alone_has():
    config = TrainConfig(norms=("bn", "ubn"), norm=NormConfig(unit="rms", momentum=0.5))
    assert names.labels_of(config) == {"bn": "BatchNorm", "ubn": "UnitizedBatchNorm (rms)"}
    alone = TrainConfig(norms=("bn",), norm=NormConfig(unit="rms", momentum=0.5))
    assert names.labels_of(alone) == {"bn": "BatchNorm (momentum=0.5)"}


def test_a_comparison_shows_one_name_and_its_record_keeps_the_other(tmp_path):
    bn = make_run(tmp_path / "a", norms=("bn",), norm=NormConfig(unit="rms")).folder
    ubn = make_run(tmp_path / "b", norms=("ubn",)).folder
    compared = combine([bn, ubn])
    # The first run's unit, which BatchNorm has not, is not the second's.
    assert [compared.results.label(name) for name in compared.results.names] == [
        *("BatchNorm", "UnitizedBatchNorm"),
    ]
    record = make_record(compared, "")
    assert [arm["name"] for arm in record["arms"]] == ["bn", "ubn"]
    assert [row[0] for row in tables(record)["results"].rows] == ["BatchNorm", "UnitizedBatchNorm"]
    rms = make_run(tmp_path / "c", norms=("ubn",), norm=NormConfig(unit="rms")).folder
    assert read_results(rms).label("ubn") == "UnitizedBatchNorm (rms)"
    for base in ("ubn unit=rms", "UnitizedBatchNorm (rms)"):
        assert combine([ubn, rms], base=base).arms[0].name == "ubn unit=rms"
