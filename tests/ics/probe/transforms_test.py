"""Layers inside lifted transforms are measured one by one, and never taken for samples."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics

N = 16  # as many layers and features as samples
X = np.random.default_rng(0).normal(size=(N, N)).astype(np.float32)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.LayerNorm(name="norm")(nn.Dense(N)(x)), None


class Scanned(nn.Module):
    """One after the other."""

    axes: dict
    body: object = Layer

    @nn.compact
    def __call__(self, x, _=None):
        axes, rngs = {"params": 0, **self.axes}, {"params": True}
        layers = nn.scan(self.body, variable_axes=axes, split_rngs=rngs, length=N)
        return layers(name="layers")(x, None)[0], None


class Mapped(nn.Module):
    """Side by side."""

    axes: dict

    @nn.compact
    def __call__(self, x):
        axes, rngs = {"params": 0, **self.axes}, {"params": True}
        layers = nn.vmap(Layer, variable_axes=axes, split_rngs=rngs, in_axes=None, axis_size=N)
        return layers(name="layers")(x, None)[0]


def moved(variables):
    return jax.tree.map(
        lambda p: p + 0.1 * jnp.sin(1.0 + jnp.arange(p.size)).reshape(p.shape), variables
    )


def by_hand(variables, side_by_side):
    """The output of each of the N layers."""
    x, found = X, []
    for i in range(N):
        params = jax.tree.map(lambda p, i=i: p[i], variables["params"]["layers"])
        y, _ = Layer().apply({"params": params}, x, None)
        found.append(np.asarray(y))
        x = x if side_by_side else y
    return found


@pytest.mark.parametrize("kind", [Scanned, Mapped])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, None])  # None: beside the parameters
def test_each_layer_for_itself(kind, axis):
    model = kind({} if axis is None else {"intermediates": axis})
    before = model.init(jax.random.key(0), X)
    after = moved(before)
    rows = Quick(model, X)(before, after).rows()
    assert [row["layer"] for row in rows] == [f"layers/norm[{i}]" for i in range(N)]
    assert {(row["n"], row["d"], row["reason"], row["note"]) for row in rows} == {(N, N, "", "")}
    sides = [by_hand(v, kind is Mapped) for v in (before, after)]
    expected = [np.linalg.norm(x - y, axis=1).mean() for x, y in zip(*sides, strict=True)]
    np.testing.assert_allclose([row["value"] for row in rows], expected, rtol=1e-4)


class Pair(nn.Module):
    """Two layers under a transform that is itself under one."""

    inner: int

    @nn.compact
    def __call__(self, x, _):
        axes = {"params": 0, "intermediates": self.inner}
        layers = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=2)
        return layers(name="pair")(x, None)


@pytest.mark.parametrize(("outer", "inner"), [(0, 0), (2, 1), (-1, -1)])
def test_nested(outer, inner):
    class Pairs(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "intermediates": outer}
            pairs = nn.scan(Pair, variable_axes=axes, split_rngs={"params": True}, length=3)
            return pairs(inner, name="pairs")(x, None)[0]

    before = Pairs().init(jax.random.key(0), X)
    after = moved(before)
    values = {row["layer"]: row["value"] for row in Quick(Pairs(), X)(before, after).rows()}
    x, y, expected = X, X, {}
    for i in range(3):
        for j in range(2):
            sides = []
            for variables, z in ((before, x), (after, y)):
                params = jax.tree.map(
                    lambda p, i=i, j=j: p[i, j], variables["params"]["pairs"]["pair"]
                )
                sides.append(Layer().apply({"params": params}, z, None)[0])
            x, y = sides
            # In the order of the axes of the array.
            place = (i, j) if (outer, inner) == (0, 0) else (j, i)
            name = f"pairs/pair/norm[{place[0]},{place[1]}]"
            expected[name] = np.linalg.norm(x - y, axis=1).mean()
    assert values == pytest.approx(expected, rel=1e-4)


class Cell(nn.RNNCellBase):
    @nn.compact
    def __call__(self, carry, x):
        y = nn.LayerNorm(name="norm")(nn.Dense(N)(x) + nn.Dense(N, name="recurrent")(carry))
        return y, y

    def initialize_carry(self, rng, shape):
        del rng
        return jnp.zeros((*shape[:-1], N))

    @property
    def num_feature_axes(self):
        return 1


def test_recurrent_steps():
    x = np.random.default_rng(1).normal(size=(N, 3, 2)).astype(np.float32)

    def rows(**options):
        class Recurrent(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.RNN(Cell(name="cell"), **options)(x)

        model = Recurrent()
        before = model.init(jax.random.key(0), x)
        after = moved(before)
        outputs = [model.apply(v, x) for v in (before, after)]
        return Quick(model, x)(before, after).rows(), outputs

    for axis in (0, 1):
        found, (y, z) = rows(variable_axes={"intermediates": axis})
        assert [row["layer"] for row in found] == [f"cell/norm[{t}]" for t in range(3)]
        expected = np.linalg.norm(y - z, axis=2).mean(0)
        np.testing.assert_allclose([row["value"] for row in found], expected, rtol=1e-4)
    (row,), _ = rows()  # its parameters are shared by all steps, so none are stacked
    assert (row["layer"], row["n"], row["statistics"]) == ("cell/norm", 0, "none")
    assert "stays inside a lifted transform; give the transform `variable_axes=" in row["reason"]
    assert np.isnan(row["value"])


class Loop(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.LayerNorm(name="norm")
        state = (0, norm(x))
        return nn.while_loop(lambda _, c: c[0] < 3, lambda m, c: (c[0] + 1, m(c[1])), norm, state)[
            1
        ]


def test_a_while_loop_is_refused():
    variables = Loop().init(jax.random.key(0), X)
    outside, inside = Quick(Loop(), X)(variables, moved(variables)).rows()
    assert (outside["layer"], outside["call"], outside["reason"]) == ("norm", 0, "")
    assert (inside["layer"], inside["call"]) == ("norm", 1)
    assert "stays inside nn.while_loop: how often it runs is not known" in inside["reason"]
    with pytest.raises(ValueError, match=r"layer 'norm' .* stays inside nn.while_loop"):
        ics.ICSProbe(Loop(), X, strict=True)(variables, variables)
