"""Any function of a state and a batch can be probed, equinox's modules among them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def hidden(w, x):
    return {"z": jnp.tanh(x @ w), "pair": (x @ w, 2 * (x @ w)), "a": x @ w}


def test_names_in_order_and_distances(exact):
    w = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    probe = ics.ICSProbe.of(hidden, X, ("z", "p*"), mode="train")
    layers = probe(probe.keep(jnp.asarray(w)), 1.5 * w).layers
    assert [(y.layer, y.output, y.mode) for y in layers] == [
        *(("z", "", "train"), ("pair", "[0]", "train"), ("pair", "[1]", "train")),
    ]
    x, y = (np.tanh(X @ v) for v in (w, 1.5 * w))
    assert float(layers[0].distance.value) == pytest.approx(exact(x, y), rel=1e-4)
    record = ics.ICSRecord(Quick.of(hidden, X, "a"), every=1)
    for step in range(3):
        record(step, (1 + step) * w)
    expected = np.linalg.norm(X @ w, axis=1).mean()
    np.testing.assert_allclose([row["value"] for row in record.rows()], expected, rtol=1e-5)


class Net(eqx.Module):
    """Its leaves are arrays, functions and flags."""

    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    act: object = jnp.tanh
    flag: bool = True

    def __call__(self, x):
        assert self.flag is True
        return self.norm(self.act(self.first(x)))


def test_equinox():
    before = Net(eqx.nn.Linear(3, 4, key=jax.random.key(0)), eqx.nn.LayerNorm(4))
    after = jax.tree.map(lambda p: 1.1 * p if eqx.is_array(p) else p, before)
    probe = Quick.of(lambda net, x: {"norm": jax.vmap(net)(x)}, X)
    arrays, rest = eqx.partition(before, eqx.is_array)
    same = Quick.of(lambda net, x: {"norm": jax.vmap(eqx.combine(net, rest))(x)}, X)
    expected = np.linalg.norm(jax.vmap(before)(X) - jax.vmap(after)(X), axis=1).mean()
    for report in (
        probe(before, after),
        probe(probe.keep(before), after),
        same(arrays, eqx.filter(after, eqx.is_array)),
    ):
        (row,) = report.rows()
        assert (row["layer"], row["kind"], row["d"]) == ("norm", "", 4)
        assert row["value"] == pytest.approx(expected, rel=1e-4)


def test_what_is_no_array_reaches_the_function_as_it_is():
    batch = {"flag": True, "name": "tanh", "steps": 2, "x": X, "words": np.array(["a"] * 8)}

    def f(state, batch):
        assert (batch["flag"], batch["name"], list(batch["words"])) == (True, "tanh", ["a"] * 8)
        y = batch["x"]
        for _ in range(batch["steps"]):
            y = getattr(jnp, batch["name"])(y * state["scale"])
        return {"y": y} if state["on"] else {}

    (row,) = Quick.of(f, batch)(
        {"scale": jnp.ones((1, 3)), "on": True}, {"scale": np.ones((1, 3), np.float32), "on": True}
    ).rows()
    assert (row["n"], row["d"], row["value"]) == (8, 3, pytest.approx(0, abs=1e-6))


def test_errors():
    w = jnp.eye(3)
    with pytest.raises(ValueError, match=r"`f` \(=int\) must be a function of a state"):
        ics.ICSProbe.of(3, X)
    with pytest.raises(ValueError, match=r"`layers` \(=3\) must be a pattern of the names"):
        ics.ICSProbe.of(hidden, X, 3)
    with pytest.raises(ValueError, match=r"`f` must return a dictionary .* returned an array"):
        ics.ICSProbe.of(lambda w, x: x @ w, X)(w, w)
    with pytest.raises(ValueError, match=r"`layers` \(=\('q',\)\) selects no .* 'z', 'pair', 'a'"):
        ics.ICSProbe.of(hidden, X, "q")(w, w)
    state = {"w": w, "rest": {"text": bytearray(b"x")}}
    with pytest.raises(ValueError, match=r"`variables_before` \(=dict\) .*unhashable.*close `f`"):
        ics.ICSProbe.of(hidden, X)(state, state)
