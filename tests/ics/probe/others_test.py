"""Other measures as columns of the report: those of ``ics.measures`` on the same outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unitnorm_jax import ICSProbe, ics
from unitnorm_jax.ics import measures

ALL = ("em", "moments", "channels", "mmd", "kmm", "gaussian", "gradient")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.LayerNorm(name="first")(x)
        x = nn.Dense(3, name="dense")(x.mean((1, 2)))
        return nn.LayerNorm(use_bias=False, use_scale=False, name="plain")(x)


def test_columns_are_the_measures():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(10, 5, 5, 2)), jnp.float32)
    model = Net()
    before = model.init(jax.random.key(0), x)
    after = jax.tree.map(lambda p: p + np.float32(0.3 * rng.normal(size=p.shape)), before)
    target = jnp.asarray(rng.normal(size=(10, 3)), jnp.float32)

    def loss(variables, batch):
        return jnp.square(model.apply(variables, batch) - target).mean()

    report = ICSProbe(model, x, measures=ALL, loss=loss)(before, after)
    rows = {row["layer"]: row for row in report.rows()}
    outputs = [
        {
            o.layer: o.value
            for o in ics.layer_outputs(model, v, (x,), {}, wanted=ics.is_normalization)
        }
        for v in (before, after)
    ]
    order = ics.layer_order(model, before, x)
    assert order == ("conv", "first", "dense")
    shift = measures.gradient_ics(
        lambda p: loss({"params": p}, x), before["params"], after["params"], layers=order
    )
    for name, row in rows.items():
        a, b = (side[name] for side in outputs)
        drift = measures.moment_drift(a, b)
        expected = {
            "mean_drift": np.median(drift.mean),
            "std_drift_90": np.quantile(drift.std, 0.9),
            "channel_w1": np.median(measures.channel_em_distance(a, b)),
            "mmd": measures.mmd(a, b).value,
            "mmd_error": measures.mmd(a, b).standard_error,
            "kmm_sample_size": measures.kernel_mean_matching(a, b).effective_sample_size,
            "gaussian_w2": measures.gaussian_w2(a, b),
        }
        for column, value in expected.items():
            assert row[column] == pytest.approx(float(value), rel=1e-3, abs=1e-5), (name, column)
    assert float(shift.distance[1]) > 1e-3
    assert rows["first"]["gradient_l2"] == pytest.approx(float(shift.distance[1]), rel=1e-4)
    assert rows["first"]["gradient_cosine"] == pytest.approx(float(shift.cosine[1]), rel=1e-4)
    assert np.isnan(rows["plain"]["gradient_l2"])  # it has no parameters
    header, first, _ = map(str.split, str(report).splitlines())
    assert header[9:] == [
        *("mean_drift", "std_drift", "channel_w1", "mmd", "kmm_sample_size", "gaussian_w2"),
        *("gradient_l2", "gradient_cosine", "pairing"),
    ]
    for column, shown in zip(header[9:-1], first[9:17], strict=True):
        assert float(shown) == pytest.approx(rows["first"][column], rel=1e-3)
    assert rows["first"]["value"] == pytest.approx(
        float(ics.em_distance(outputs[0]["first"], outputs[1]["first"]).value), rel=1e-4
    )


def test_a_layer_that_cannot_be_measured_has_none():
    f = lambda w, x: {"good": x * w, "bad": jnp.zeros((3,))}  # noqa: E731
    x = jnp.arange(8.0).reshape(4, 2)
    rows = ICSProbe.of(f, x, measures=("mmd",))(1.0, 2.0).rows()
    assert [np.isfinite(row["mmd"]) for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"measures": ("em", "w2")},
            r"`measures` \(=\('em', 'w2'\)\) has 'w2'; choose from em",
        ),
        ({"measures": "em"}, r"`measures` \(='em'\) must be a sequence of names, as \('em',\)"),
        ({"measures": ("gradient",)}, r"`loss` \(=None\) must be given if, and only if"),
        ({"loss": lambda v, x: 0.0}, r"`measures` \(=\('em',\)\) has 'gradient'"),
        ({"measures": ("mmd",), "weights": np.ones(4)}, r"`weights` must be None.*'mmd'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ICSProbe(nn.LayerNorm(), jnp.ones((4, 3)), **options)


class Twisted(nnx.Module):
    """Calls its layers in another order than it makes them."""

    def __init__(self, rngs):
        self.last, self.norm = nnx.Linear(4, 2, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.first, self.shift = nnx.Linear(3, 4, rngs=rngs), nnx.Param(jnp.ones(2))

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x)))) + self.shift[...][None]


def test_gradients_of_an_nnx_model():
    model = Twisted(nnx.Rngs(0))
    x, y = jax.random.normal(jax.random.key(0), (8, 3)), jnp.linspace(-1, 1, 16).reshape(8, 2)
    probe = ICSProbe(
        *(model, x, (nnx.BatchNorm, nnx.Linear)),
        mode="train",
        measures=("gradient",),
        loss=lambda model, x: jnp.square(model(x) - y).mean(),
    )
    before = probe.keep(model)
    old = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    nnx.update(model, jax.tree.map(lambda p: 1.2 * p + 0.1, old))
    rows = {row["layer"]: row for row in probe(before, model).rows()}

    def plain(state):
        """By path, values alone."""
        return {"/".join(path): jnp.asarray(value) for path, value in nnx.to_flat_state(state)}

    def loss(p):
        hidden = x @ p["first/kernel"] + p["first/bias"][None]
        mean, var = hidden.mean(0, keepdims=True), hidden.var(0, keepdims=True)
        hidden = (hidden - mean) / jnp.sqrt(var + 1e-5) * p["norm/scale"][None]
        hidden = nnx.relu(hidden + p["norm/bias"][None])
        out = hidden @ p["last/kernel"] + p["last/bias"][None] + p["shift"][None]
        return jnp.square(out - y).mean()

    # The model's own parameter is that of the model, which is called before its layers.
    layers = ("", "first", "norm", "last")
    after = plain(nnx.state(model, nnx.Param))
    shift = measures.gradient_ics(loss, plain(old), after, layers=layers)
    for layer, distance, cosine in zip(layers, shift.distance, shift.cosine, strict=True):
        if layer:
            assert rows[layer]["gradient_l2"] == pytest.approx(float(distance), rel=1e-3, abs=1e-6)
            assert rows[layer]["gradient_cosine"] == pytest.approx(float(cosine), abs=1e-4)
    assert rows["norm"]["gradient_l2"] > 0.01
