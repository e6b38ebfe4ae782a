import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
MODEL = nn.Sequential([nn.Dense(4), nn.LayerNorm()])


@pytest.fixture(scope="module")
def probe():
    return ics.ICSProbe(MODEL, X, method="pairing")


def train(record, steps, start=0, bad_at=None):
    """A trainer that donates its state; the states seen, as numpy arrays."""
    step = jax.jit(lambda v: jax.tree.map(lambda p: 1.1 * p + 0.01, v), donate_argnums=0)
    variables = MODEL.init(jax.random.key(1), X)
    seen = {}
    for t in range(start, steps):
        seen[t] = jax.tree.map(lambda p: np.array(p, copy=True), variables)
        record(t, variables)
        variables = step(variables)
        if t + 1 == bad_at:
            variables = jax.tree.map(lambda p: p * jnp.nan, variables)
    return seen


@pytest.mark.parametrize(
    ("every", "lag", "steps"),
    [(1, 1, [1, 2, 3, 4, 5, 6]), (3, 1, [3, 6]), (3, 3, [3, 6]), (4, 2, [4])],
)
def test_schedule_and_states(probe, every, lag, steps):
    record = ics.ICSRecord(probe, every, lag)
    seen = train(record, 7)
    rows = record.rows()
    assert [row["step"] for row in rows] == steps
    for row in rows:
        expected = probe(seen[row["step"] - lag], seen[row["step"]]).layers[0]
        assert row["lag"] == lag
        assert row["value"] == float(expected.distance.value) > 0


def test_a_restart_leaves_out_what_it_did_not_see(probe):
    record = ics.ICSRecord(probe, every=3, lag=2)
    train(record, 10, start=2)  # the state after 1 update is not seen
    assert [row["step"] for row in record.rows()] == [6, 9]


@pytest.mark.parametrize("integer", [jnp.int32, np.int64, np.uint8, lambda t: np.array(t), float])
def test_integers_of_any_kind(probe, integer, tmp_path):
    record = ics.ICSRecord(probe, np.int32(2), np.int64(1))
    variables = MODEL.init(jax.random.key(1), X)
    for step in range(3):
        record(integer(step), variables)
    record.write(tmp_path / "ics.jsonl")
    (row,) = ics.read_rows(tmp_path / "ics.jsonl")
    assert (row["step"], row["lag"]) == (2, 1)
    assert all(type(value) in (int, float, bool, str) for value in row.values())
    (row,) = record._probe(variables, variables).rows(step=integer(2))
    assert type(row["step"]) in (int, float)
    for bad in (jnp.arange(2), 2.5, jnp.nan):
        with pytest.raises(ValueError, match=r"`step` \(=.*\) must be an integer"):
            record(bad, variables)


@pytest.mark.parametrize("name", ["nan", "inf", "-inf"])
def test_layers_named_as_numbers(name, tmp_path):
    record = ics.ICSRecord.__new__(ics.ICSRecord)
    texts = ("layer", "output", "kind", "mode", "statistics", "reason")
    rows = [dict.fromkeys(texts, name) | {"call": 0, "value": float(name), "upper_radius": np.inf}]
    record._pending, record._rows = None, rows
    record.write(tmp_path / "ics.jsonl")
    np.testing.assert_equal(ics.read_rows(tmp_path / "ics.jsonl"), rows)


def test_it_returns_the_report_it_keeps(probe):
    record = ics.ICSRecord(probe, every=2)
    variables = MODEL.init(jax.random.key(1), X)
    reports = [record(t, variables) for t in range(3)]
    assert reports[:2] == [None, None]
    assert reports[2].rows(step=2, lag=1) == record.rows()


def test_rows_columns_and_files(probe, tmp_path):
    record = ics.ICSRecord(probe, every=2)
    train(record, 7, bad_at=4)
    rows = record.rows()
    assert rows[0]["reason"] == ""
    assert "NaN or inf in the output after" in rows[1]["reason"]
    assert math.isnan(rows[1]["value"])
    for row in rows:
        assert all(type(value) in (int, float, bool, str) for value in row.values())

    columns = record.columns()
    assert columns["step"].tolist() == [2, 4, 6]
    np.testing.assert_array_equal(columns["value"], [row["value"] for row in rows])
    assert ics.ICSRecord(probe, 1).columns() == {}

    path = tmp_path / "ics.jsonl"
    record.write(path)
    lines = path.read_text().splitlines()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(lines[1], parse_constant=refuse)["value"] == "nan"
    np.testing.assert_equal(ics.read_rows(path), rows)

    text = str(record).splitlines()
    assert text[0].split()[:3] == ["step", "layer", "stats"]
    assert len(text) == 4
    rows[0]["step"] = 99  # a copy
    assert record.rows()[0]["step"] == 2


@pytest.mark.parametrize(("every", "lag"), [(0, 1), (2, 3), (2, 0)])
def test_bad_schedules(probe, every, lag):
    with pytest.raises(ValueError, match=r"`every` .* must be at least 1, and `lag`"):
        ics.ICSRecord(probe, every, lag)


def test_it_goes_on_from_a_checkpoint_and_rows_are_taken_once(probe):
    """The copy that was kept, through numpy, makes the measurement that would have been made."""
    whole, before, after = (ics.ICSRecord(probe, every=3, lag=2) for _ in range(3))
    seen = train(whole, 7)
    for step in (0, 1):
        before(step, seen[step])
    assert before.take() == []
    step, kept = before.kept
    assert step == 1
    after.resume(step, jax.tree.map(np.asarray, ics.unpack(kept)))
    for step in range(2, 7):
        assert after.looks_at(step) == (step in (3, 4, 6))
        after(step, seen[step])
    assert after.take() == whole.rows()
    assert after.take() == after.rows() == []
    assert not ics.ICSRecord(probe, every=3, lag=2).looks_at(3)  # Its earlier state was not seen.


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "ics.jsonl"
    for damaged, why in (('{"step": 2, "la', "Unterminated"), ("[2]", "no object with names")):
        path.write_text('{"step": 1}\n' + damaged)
        with pytest.raises(ValueError, match=rf"line 2 of .*ics\.jsonl is not JSON \(.*{why}"):
            ics.read_rows(path)
