"""A layer that cannot be measured is a row with its reason, and not the end of the report."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def f(state, x):
    y = x * state
    return {
        "good": y,
        "scalar": y.sum(),
        "complex": y + 1j,
        "flags": y > 0,
        "empty": y[:, :0],
        "text": "none",
        "nan": jnp.where(state > 1, jnp.nan, y),
        "constant": jnp.ones_like(y) * state,
        "last": 2 * y,
    }


EXPECTED = {
    "good": "",
    "scalar": "must have one entry per sample along one axis (n=8 becomes n=9",
    "complex": "must hold real numbers, but is complex64; leave the layer out with `layers`",
    "flags": "must hold real numbers, but is bool",
    "empty": "must hold numbers, but has shape (8, 0)",
    "text": "must hold real numbers, but is str",
    "nan": "NaN or inf in the output after the update",
    "constant": "The output before the update is the same for all samples",
    "last": "",
}


@pytest.fixture(scope="module")
def record():
    record = ics.ICSRecord(ics.ICSProbe.of(f, X, method="pairing"), every=1)
    for step in range(2):
        record(step, jnp.float32(1 + step))
    return record


def test_every_layer_has_a_row(record, tmp_path):
    rows = record.rows()
    assert [row["layer"] for row in rows] == list(EXPECTED)
    for row, reason in zip(rows, EXPECTED.values(), strict=True):
        assert reason in row["reason"]
        assert bool(reason) == bool(row["reason"])
        assert math.isnan(row["value"]) == (row["layer"] not in ("good", "constant", "last"))
        assert row["exact"] == (not math.isnan(row["value"]))
    good, last = rows[0], rows[-1]
    assert good["value"] == pytest.approx(np.linalg.norm(X, axis=1).mean(), rel=1e-5)
    assert last["value"] == pytest.approx(2 * good["value"], rel=1e-5)
    assert rows[-2]["value"] == pytest.approx(math.sqrt(3), rel=1e-5)  # its distance is known
    # All that shows rows can show these.
    assert str(record).count("must hold") == 4
    names = {name.split("/")[1] for name in ics.scalars(rows)}
    assert names == {"good", "last", "constant"}
    record.write(tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[1])["value"] == "nan"
    assert ics.read_rows(tmp_path / "rows.jsonl")[2]["reason"] == rows[2]["reason"]
    figure = ics.plot(rows)
    assert len(figure.axes) == len(EXPECTED)


@pytest.mark.parametrize("name", [name for name, reason in EXPECTED.items() if reason])
def test_strict(name):
    probe = ics.ICSProbe.of(f, X, ("good", name), method="pairing", strict=True)
    with pytest.raises(ValueError, match=rf"ayer '{name}' .*(must|NaN|same)"):
        probe(jnp.float32(1), jnp.float32(2))


def test_none_that_can_be_measured():
    report = ics.ICSProbe.of(f, X, ("scalar", "text"))(jnp.float32(1), jnp.float32(2))
    assert [row["layer"] for row in report.rows()] == ["scalar", "text"]
    assert [layer.n for layer in report.layers] == [0, 0]
    assert all(math.isnan(layer.distance.upper) for layer in report.layers)


class Helper(nn.Module):
    """One that is never bound."""

    def __call__(self, x):
        return 2 * x


HELPER = Helper(parent=None)
HELPER.__dict__["scope"] = None


class Flagged(nn.Module):
    @nn.compact
    def __call__(self, batch, train, kind, mask=None):
        assert isinstance(train, bool)
        assert mask is None
        assert (kind, batch["name"]) == ("relu", "x")
        x = HELPER(getattr(nn, kind)(nn.Dense(4)(batch["x"])))
        return nn.BatchNorm(use_running_average=not train)(x)


def test_flags_strings_and_helpers():
    batch = {"name": "x", "x": X}
    variables = Flagged().init(jax.random.key(0), batch, False, "relu")
    for train in (False, True):
        mode = "train" if train else "eval"
        given = (batch, train, "relu", None)
        probe = ics.ICSProbe(Flagged(), given, mode=mode, method="pairing")
        (row,) = probe(variables, variables).rows()
        assert (row["n"], row["statistics"]) == (8, "batch" if train else "running")
        assert row["note"] == ""
    forgotten = ics.ICSProbe(Flagged(), (batch, False, "relu"), mode="train", method="pairing")
    (row,) = forgotten(variables, variables).rows()
    assert row["note"].startswith('running statistics in mode "train": give `train_kwargs`')


def test_a_copy_for_each_device():
    model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
    variables = model.init(jax.random.key(0), X)
    copies = jax.tree.map(lambda p: jnp.stack([p] * 8), variables)
    with pytest.raises(ValueError, match=r"along a first axis .* flax.jax_utils.unreplicate\("):
        ics.ICSProbe(model, X)(copies, copies)
