"""The library's public parts once each; also under ``python -O``, where no ``assert`` is left.

So nothing here asserts: numpy's checks and `pytest.raises` stay. Flax takes its interceptors off
inside an ``assert``; see `unitnorm_jax._interception`.
"""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from scipy.stats import wasserstein_distance

from tests.layers import LAYERS
from unitnorm_jax import ics, linen
from unitnorm_jax.contrib.batch_channel_norm import elimination_singularities
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    collect_statistics,
    noisy_outputs,
    recalibrate,
    track,
)

X = np.random.default_rng(0).normal(1, 2, size=(16, 5)).astype(np.float32)


def depth():
    return len(nn.module._global_interceptor_stack)


@pytest.fixture(autouse=True)
def _interceptors_are_taken_off():
    before = depth()
    yield
    assert_equal(depth(), before)


@pytest.mark.smoke
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layers(layer):
    x = layer.inputs()
    y, _ = layer.jitted(layer.variables(), x)
    assert_equal(len(y if isinstance(y, jax.Array) else jax.tree.leaves(y)[0]), len(x))
    for leaf in jax.tree.leaves(y):
        assert_array_equal(np.isfinite(leaf), True)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        norm = linen.UnitizedBatchNorm(use_running_average=not train, name="norm")
        return nn.Dense(3, name="head")(nn.relu(norm(nn.Dense(4, name="dense")(x))))


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))


@pytest.mark.smoke
def test_unitize():
    model = linen.unitize(Plain(), unit="rms")
    variables = model.init(jax.random.key(0), X)
    assert_equal(sorted(variables["params"]["BatchNorm_0"]), ["alpha", "bias", "scale"])
    with nn.intercept_methods(lambda f, args, kwargs, context: f(*args, **kwargs)):
        model.apply(variables, X, train=True, mutable=["batch_stats"])
        assert_equal(depth(), 1)
    with pytest.raises(ValueError, match="no layer to unitize"):
        linen.unitize(nn.Dense(3)).init(jax.random.key(0), X)
    nn.module._global_interceptor_stack._storage.clear()  # Flax's own stays under -O


def network():
    model = Net()
    return model, model.init(jax.random.key(0), X)


@pytest.mark.smoke
def test_recalibration_and_tracking():
    model, variables = network()
    h = np.asarray(nn.Dense(4).apply({"params": variables["params"]["dense"]}, X), np.float64)
    for _ in range(2):  # an interceptor that stayed would see the second
        new = recalibrate(variables, [collect_statistics(model, variables, X)])
        assert_allclose(new["batch_stats"]["norm"]["mean"], h.mean(0), rtol=1e-4, atol=1e-5)
        assert_allclose(new["batch_stats"]["norm"]["var"], h.var(0), rtol=1e-4)
        _, new = track(model, variables, X, rate=0.5)
        assert_allclose(new["batch_stats"]["norm"]["mean"], h.mean(0) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
def test_noisy_outputs():
    model, variables = network()
    clean = model.apply(variables, X)
    with noisy_outputs(jax.random.key(0), 0.3):
        noisy = model.apply(variables, X)
    assert_array_equal(model.apply(variables, X), clean)
    if not np.abs(noisy - clean).max() > 0.01:
        pytest.fail("no noise")


@pytest.mark.smoke
def test_an_error_or_anothers_interceptor_leaves_the_stack_as_it_was():
    model, variables = network()
    with (
        pytest.raises(ValueError, match="`strength`"),
        noisy_outputs(jax.random.key(0), -1.0),
    ):
        model.apply(variables, X)
    before = depth()

    def other(next_fun, args, kwargs, context):
        return next_fun(*args, **kwargs)

    with noisy_outputs(jax.random.key(0), 0.1), nn.intercept_methods(other):
        pass
    assert_equal(depth(), before)


@pytest.mark.smoke
def test_probe():
    model, variables = network()
    after = jax.tree.map(lambda p: p + 0.1, variables)
    probe = ics.ICSProbe(model, X, method="pairing", eval_kwargs={"train": False})
    values = [probe(variables, after).layers[0].upper["pairing"] for _ in range(2)]
    wanted = ics.layer_filter(None)
    x, y = (
        ics.layer_outputs(model, v, (X,), {}, wanted=wanted)[0].value for v in (variables, after)
    )
    assert_allclose(values, [np.linalg.norm(x - y, axis=1).mean()] * 2, rtol=1e-4)
    with pytest.raises(ValueError, match="selects no layer"):
        ics.layer_outputs(model, variables, (X,), {}, wanted=ics.layer_filter("nothing"))
    assert_equal(ics.layer_positions(model, X), {"norm": 1})
    assert_allclose(ics.unitized_bound_penalty(variables["params"], 1, unit="sample"), 1)
    (activity,) = elimination_singularities(model, variables, [X])
    assert_equal(activity.channels, 4)


@pytest.mark.smoke
def test_distance():
    x, y = X[:, :1], X[::-1, :1] + 3
    found = ics.em_distance(jnp.asarray(x), jnp.asarray(y))
    truth = wasserstein_distance(x[:, 0], y[:, 0])
    assert_allclose(found.value, truth, rtol=1e-5)
    assert_array_equal(found.lower <= truth * (1 + 1e-6), True)
    assert_array_equal(truth <= found.upper * (1 + 1e-6), True)


@pytest.mark.slow
def test_without_assertions():
    """The tests above in a Python that has no ``assert``."""
    command = [
        sys.executable,
        "-O",
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore::pytest.PytestConfigWarning",
    ]
    done = subprocess.run(
        [*command, "-m", "smoke", __file__],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
