import re

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from unitnorm_jax import ics
from unitnorm_jax.linen import UnitizedBatchNorm

N = 8
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
KWARGS = {"train_kwargs": {"train": True}, "eval_kwargs": {"train": False}}


class Net(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        norm = UnitizedBatchNorm(use_running_average=not train, axis_name=self.axis_name)
        return nn.LayerNorm()(nn.Dense(6)(nn.relu(norm(nn.Dense(6)(x)))))


def states(scale=0.02, model=None):
    """Before, and after a change of every parameter by `scale`."""
    before = (model or Net()).init(jax.random.key(1), X, train=False)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    move = lambda p: p + scale * jax.random.normal(next(keys), p.shape)  # noqa: E731
    return before, {**before, "params": jax.tree.map(move, before["params"])}


def numbers(report):
    return [jax.device_get(tuple(layer)[8:16]) for layer in report.layers]


def assert_close(one, other):
    chex.assert_trees_all_close(numbers(one), numbers(other), rtol=2e-5, atol=1e-6)


@pytest.fixture(scope="module")
def probe():
    return ics.ICSProbe(Net(), X, mode="train", **KWARGS)


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_distances_are_those_of_the_outputs(probe, exact, scale):
    before, after = states(scale)
    report = probe(before, after)
    outputs = [
        Net().apply(
            v, X, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
        )[1]["intermediates"]
        for v in (before, after)
    ]
    names = ["UnitizedBatchNorm_0", "LayerNorm_0"]
    assert [layer.layer for layer in report.layers] == names
    for layer, name in zip(report.layers, names, strict=True):
        x, y = (np.asarray(side[name]["__call__"][0]) for side in outputs)
        truth = exact(x, y)
        assert float(layer.distance.value) == pytest.approx(truth, rel=1e-4)
        assert bool(layer.distance.exact)
        spread = np.mean(np.linalg.norm(x - x.mean(0), axis=1))
        assert float(layer.relative.value) == pytest.approx(truth / spread, rel=1e-4)
        assert (layer.n, layer.d, layer.mode, layer.call) == (N, 6, "train", 0)
        assert bool(layer.pairing_optimal) == (scale < 1)
    assert [layer.statistics for layer in report.layers] == ["batch", "none"]


def test_eval_mode_uses_the_running_statistics(exact):
    before, after = states()
    running = jax.tree.map(lambda s: s + 0.5, before["batch_stats"])
    before, after = ({**v, "batch_stats": running} for v in (before, after))
    batch = X.copy()
    probe = ics.ICSProbe(Net(), batch, UnitizedBatchNorm, method="pairing", **KWARGS)
    batch[:] = np.nan  # it has its own copy
    (layer,) = probe(before, after).layers
    assert (layer.mode, layer.statistics) == ("eval", "running")
    x, y = (
        Net().apply(v, X, train=False, mutable=["intermediates"], capture_intermediates=True)[1]
        for v in (before, after)
    )
    x, y = (z["intermediates"]["UnitizedBatchNorm_0"]["__call__"][0] for z in (x, y))
    assert float(layer.distance.value) == pytest.approx(exact(x, y), rel=1e-4)


def test_compiled_once_and_the_state_is_untouched(probe):
    before, after = states()
    kept = jax.tree.map(lambda p: np.array(p, copy=True), (before, after))
    first = probe(before, after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Net, "__call__", None)  # a second trace would fail
        again = probe(before, after)
        probe(after, before)
        probe(jax.tree.map(np.asarray, before), flax.core.freeze(after))
    jax.tree.map(np.testing.assert_array_equal, numbers(first), numbers(again))
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == b.tobytes(), (before, after), kept)
    assert all(jax.tree.leaves(same))


def test_as_an_argument_of_a_function(probe):
    """Its batch is an argument of the program too, and no constant in it."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def both(probe, before, after):
        return probe(before, after), probe(after, before)

    before, after = states()
    for _ in range(2):
        for report, sides in zip(both(probe, before, after), [(0, 1), (1, 0)], strict=True):
            assert_close(report, probe(*((before, after)[i] for i in sides)))

    def programs(*args):
        closed = jax.jit(lambda before, after: both(probe, before, after))
        return both.lower(probe, *args).as_text(), closed.lower(*args).as_text()

    constant = f"dense<.*> : tensor<{N}x5xf32>"
    given, closed_over = programs(before, after)
    assert re.search(constant, closed_over)
    assert not re.search(constant, given)


def test_the_same_state_has_not_shifted(probe):
    before, _ = states()
    for layer in probe(before, before).layers:
        assert float(layer.distance.upper) == 0
        assert bool(layer.pairing_optimal)


@pytest.mark.parametrize(
    ("axis_type", "method", "scales"),
    [(AxisType.Auto, "auto", (0.02, 3.0)), (AxisType.Explicit, "pairing", (0.02,))],
)
def test_a_sharded_batch_gives_the_same(probe, axis_type, method, scales):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,))
    sharded = jax.device_put(X, NamedSharding(mesh, PartitionSpec("batch")))
    everywhere = NamedSharding(mesh, PartitionSpec())
    sharded_probe = ics.ICSProbe(Net(), sharded, mode="train", method=method, **KWARGS)
    for scale in scales:
        before, after = states(scale)
        one = probe(before, after)
        many = sharded_probe(*jax.device_put((before, after), everywhere))
        assert len(many.measures.spread.sharding.device_set) == 8
        if scale > 1:  # the host's solver decides
            assert not any(layer.pairing_optimal for layer in one.layers)
        assert_close(one, many)


def test_layers_that_reduce_over_a_mapped_axis(probe):
    before, after = states()
    one = probe(before, after)
    model = Net(axis_name="batch")
    got = ics.ICSProbe(model, X, mode="train", axis_name="batch", method="pairing", **KWARGS)(
        before, after
    )
    assert_close(one, got)
    assert [layer.statistics for layer in got.layers] == ["batch", "none"]


def test_donation(probe):
    before, after = states()
    expected = numbers(probe(before, after))
    # They share the running statistics.
    kept, packed, after = ics.snapshot(before), probe.keep(before), ics.snapshot(after)
    step = jax.jit(lambda v: jax.tree.map(lambda p: 2 * p, v), donate_argnums=0)
    jax.block_until_ready(step(before))
    with pytest.raises(ValueError, match=r"`variables_before` holds deleted arrays"):
        probe(before, after)
    jax.tree.map(np.testing.assert_array_equal, numbers(probe(kept, after)), expected)
    jax.tree.map(np.testing.assert_array_equal, numbers(probe(packed, after)), expected)
    with pytest.raises(ValueError, match=r"of the same model, but at .* and missing after"):
        probe(packed, {"params": {}})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_an_answer(probe, bad):
    before, after = states()
    dense = after["params"]["Dense_0"]  # Flax numbers the outer call first
    dense["bias"] = dense["bias"].at[0].set(bad)
    first, last = probe(before, after).layers
    assert first.reason == ""
    assert last.reason == "NaN or inf in the output after the update"
    assert np.isnan(last.distance.value)
    assert not last.pairing_optimal


class Parts(nn.Module):
    """A layer called twice, noise, several arguments, a tree as the output."""

    @nn.compact
    def __call__(self, x, other):
        dense = nn.Dense(3, name="dense")
        y = nn.Dropout(0.5, deterministic=False)(dense(dense(x) + other["y"]))
        return y, (2 * y, None)


def test_calls_tuples_noise_and_several_arguments():
    x = jnp.asarray(X[:, :3])
    args = (x, {"y": 2 * x})
    rngs = {"dropout": jax.random.key(1)}
    before = Parts().init({"params": jax.random.key(0), **rngs}, *args)
    after = jax.tree.map(lambda p: p + 0.01, before)
    probe = ics.ICSProbe(Parts(), args, ("dense", Parts), rngs=rngs, method="pairing")
    layers = probe(before, after).layers
    names = [f"{layer.layer}#{layer.call}{layer.output}" for layer in layers]
    assert names == ["dense#0", "dense#1", "#0[0]", "#0[1][0]"]
    distances = [float(layer.distance.value) for layer in layers]
    assert len(set(distances)) == 4
    assert distances[3] == pytest.approx(2 * distances[2])
    # The noise is the same on both sides.
    assert [float(layer.distance.value) for layer in probe(before, before).layers] == [0] * 4


class Output(nn.Module):
    """Returns whatever it is told to."""

    make: object

    @nn.compact
    def __call__(self, x):
        return self.make(self.param("scale", nn.initializers.ones, ()) * x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: jnp.sum(x),
            r"one entry per sample along one axis \(n=8 becomes n=9 .* shape \(\)",
        ),
        (lambda x: x.mean(0), r"but has shape \(5,\); return it with the samples first, or leave"),
        (lambda x: x[:, :0], r"must hold numbers, but has shape \(8, 0\)"),
        (lambda x: x > 0, r"must hold real numbers, but is bool"),
        (lambda x: (x, "text"), r"Output \[1\] layer .* must hold real numbers"),
    ],
)
def test_outputs_that_are_no_samples(make, message):
    model = Output(make)
    variables = {"params": {"scale": jnp.ones(())}}
    with pytest.raises(ValueError, match=message):
        ics.ICSProbe(model, X, Output, strict=True)(variables, variables)


def test_states_that_do_not_match(probe):
    before, after = states()
    wide = {**after, "params": {**after["params"], "Dense_0": {"kernel": jnp.ones((5, 7))}}}
    with pytest.raises(ValueError, match=r"must be of the same model, but at .*Dense_0"):
        probe(before, wide)
    with pytest.raises(ValueError, match=r"at \['batch_stats'\].* and missing after"):
        probe(before, {"params": after["params"]})
    with pytest.raises(ValueError, match=r"`variables_after` \(=list\) must be the model's coll"):
        probe(before, [after])
    with pytest.raises(ValueError, match=r"`variables_before` \(=dict\) must be the model's coll"):
        probe({}, after)


def test_a_filter_that_matches_nothing():
    before, after = states()
    with pytest.raises(ValueError, match=r"selects no layer .*'Dense_0' \(Dense\)"):
        ics.ICSProbe(Net(), X, nn.Conv, **KWARGS)(before, after)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((len, X), r"`model` \(=builtin_function_or_method\) must be an instance"),
        ((Net(), X[:0]), r"`batch` must hold at least one sample .* \[\(0, 5\)\]"),
        ((Net(), 3.0), r"`batch` must hold at least one sample"),
        ((Net(), ()), r"`batch` must hold at least one sample"),
        ((Net(), X, 3), r"`layers` \(=3\) must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ics.ICSProbe(*arguments)


def test_bad_options():
    with pytest.raises(ValueError, match=r"`mode` \(='test'\) must be 'train' or 'eval'"):
        ics.ICSProbe(Net(), X, mode="test")
    with pytest.raises(ValueError, match=r"`method` \(='best'\) must be one of auto"):
        ics.ICSProbe(Net(), X, method="best")
