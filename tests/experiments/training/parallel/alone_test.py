"""A process that is alone, or cannot join the others."""

import io

import jax
import pytest
from rich.console import Console

from experiments.config.parallel import DevicesConfig
from experiments.training import distributed, record


def test_a_process_alone_needs_no_cluster(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    assert not distributed.initialize(DevicesConfig(distributed="none"))
    assert calls == []
    assert distributed.initialize(DevicesConfig())
    unset = {"coordinator_address": None, "num_processes": None, "process_id": None}
    assert calls == [unset | {"initialization_timeout": 120}]


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        (ValueError("coordinator_address should be defined."), True),
        (RuntimeError("... must be called before any JAX calls ..."), True),
        (RuntimeError("DEADLINE_EXCEEDED: barrier timed out\nmore"), False),
        (ValueError("Number of processes must be defined."), False),
    ],
)
def test_processes_that_cannot_be_joined(monkeypatch, error, alone):
    def fail(**options):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    if alone:
        assert not distributed.initialize(DevicesConfig())
        return
    first = str(error).splitlines()[0]
    with pytest.raises(ValueError, match=rf"could not be joined \({first}\). Start all processes"):
        distributed.initialize(DevicesConfig())


def test_another_process_writes_nothing(tmp_path):
    with record.NullRecorder() as recorder:
        recorder.write("train", [{"step": 1}])
    assert not list(tmp_path.iterdir())
    output = io.StringIO()
    Console(file=output, quiet=True).print("table")
    assert output.getvalue() == ""
