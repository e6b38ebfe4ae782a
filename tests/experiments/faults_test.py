"""The fault test in short: real processes, killed by SIGKILL, end like one that was not."""

import dataclasses
import io

import pytest
from rich.console import Console

from experiments.faults import __main__ as faults
from experiments.faults.kill import draw_moments

SHORT = faults.FaultsConfig(
    kills=2, norms=("ubn",), seeds=(0,), epochs=6, widths=(4,), probe_every=0
)


def test_killed_training_ends_as_if_it_had_not_been(tmp_path):
    output = io.StringIO()
    config = dataclasses.replace(SHORT, folder=str(tmp_path / "faults"))
    faults.run(config, Console(file=output, width=100))
    text = output.getvalue()
    assert "2 kills, no difference" in text


def test_moments_are_spread():
    moments = draw_moments(20, seed=0, start_seconds=8.0, stretch_seconds=0.5)
    assert moments == draw_moments(20, seed=0, start_seconds=8.0, stretch_seconds=0.5)
    assert [moment.fraction for moment in moments] == sorted(m.fraction for m in moments)
    assert [m.kind for m in moments].count("save") == 7
    for moment in moments:
        assert 0 <= moment.fraction < 0.9
        assert 0 <= moment.delay <= {"save": 0.03, "training": 0.5, "start": 8.0}[moment.kind]


def test_no_kills():
    with pytest.raises(ValueError, match=r"`kills` \(=0\) must be a positive number"):
        faults.FaultsConfig(kills=0)
