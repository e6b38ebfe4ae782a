"""Rows come while the device works, once a second, and only of updates that are finished."""

import itertools
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.progress import Progress
from experiments.training import rows as rows_module
from experiments.training.rows import StretchRows


class Slow:
    """A number that the device has not computed yet."""

    def __init__(self):
        self.ready = False

    def is_ready(self):
        return self.ready

    def __array__(self, dtype=None, copy=None):
        return np.float32(2.0)


class Shown(Progress):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def show(self, status, updates):
        self.told.append((status.step, status.loss, updates))


@pytest.fixture
def run():
    class FakeRun(types.SimpleNamespace):
        @property
        def step(self):
            return len(self.train_rows)

    written = []
    return FakeRun(
        config=types.SimpleNamespace(optim=types.SimpleNamespace(epochs=1, batch_size=2)),
        program=types.SimpleNamespace(norm="bn", rates=np.arange(9.0), updates=9),
        recorder=types.SimpleNamespace(write=lambda kind, rows: written.extend(rows)),
        seed=0,
        train_rows=[],
        written=written,
    )


def numbers(loss):
    return {"loss": loss, "grad_norm": jnp.float32(1), "accuracy": jnp.float32(0.5)}


def test_only_what_is_ready_is_fetched(run, monkeypatch):
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(rows_module.time, "perf_counter", lambda: next(clock))
    shown, slow = Shown(), Slow()
    rows = StretchRows([run], 0, shown)
    rows.add(numbers(jnp.float32(1)))
    rows.add(numbers(slow))
    rows.add(numbers(jnp.float32(3)))
    assert [row["loss"] for row in run.written] == [1.0]
    slow.ready = True
    rows.add(numbers(jnp.float32(4)))
    assert [row["step"] for row in run.written] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in run.written] == [0.0, 1.0, 2.0, 3.0]
    assert shown.told == [(1, 1.0, 1), (4, 4.0, 3)]
    rows.end()
    assert run.train_rows == run.written


def test_within_a_second_nothing_is_fetched(run):
    rows = StretchRows([run], 0, Shown())
    rows.add(numbers(jnp.float32(1)))
    assert run.written == []
    rows.end()
    assert [row["loss"] for row in run.written] == [1.0]


def test_rows_that_cannot_be_written_are_kept(run):
    rows = StretchRows([run], 0, Shown())
    rows.add(numbers(jnp.float32(1)))
    with pytest.raises(OSError, match="No space left"):
        rows.end(OSError(28, "No space left on device"))
    assert (len(run.train_rows), run.written) == (1, [])
