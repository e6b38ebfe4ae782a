"""The network that carries predictions: against ``PreActResNet``, and its own predictions."""

import functools
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods
from experiments.config import experiment
from experiments.models import KalmanResNet, PreActResNet
from experiments.models.kalman_resnet import KalmanBlock
from experiments.training import steps
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_kalman_norm import (
    BatchKalmanNorm,
    Moments,
    add_moments,
    linear_moments,
    relu_moments,
)

TINY = {"blocks": (1, 1), "widths": (8, 8)}
X = jax.random.normal(jax.random.key(1), (8, 8, 8, 1))


def init(model, x=X):
    return jax.jit(partial(model.init, train=False))(jax.random.key(3), x)


def train(model, start, x=X, **options):
    run = partial(model.apply, train=True, mutable=["batch_stats"])
    return jax.jit(run)(start, x, **options)


def make(**fields):
    norm = partial(BatchKalmanNorm, **{"slice_size": 2} | fields.pop("norm_fields", {}))
    return KalmanResNet(**TINY, norm=norm, **fields)


@functools.cache
def variables():
    found = init(make())
    leaves, tree = jax.tree.flatten(found)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    moved = [
        v + jax.random.uniform(k, v.shape, maxval=0.3) for k, v in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def test_same_graph_and_weights_as_the_other_methods():
    bn = PreActResNet(**TINY, norm=partial(nn.BatchNorm, epsilon=1e-5))
    one, other = init(make()), init(bn)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    # At inference nothing is predicted, and the batch need not be of slices.
    y, expected = (jax.jit(partial(m.apply, train=False))(variables(), X[:3]) for m in (make(), bn))
    assert_close(y, expected, 1e-6)
    assert make().norm_paths() == bn.norm_paths()


def test_at_gain_1_it_is_batch_normalization():
    whole = {"slice_size": None, "gain": 1.0, "momentum": 0.7}
    bn = PreActResNet(**TINY, norm=partial(nn.BatchNorm, momentum=0.7, epsilon=1e-5))
    start = init(bn)
    expected = train(bn, start)
    for prediction in ("moments", None):
        model = make(norm_fields=whole, prediction=prediction)
        actual = train(model, start)
        jax.tree.map(partial(assert_close, tol=1e-5), actual, expected)


def calls(model, x, rngs):
    """What each normalization layer was given: its name, input, and prediction."""
    seen = []

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, BatchKalmanNorm) and context.method_name == "__call__":
            seen.append((context.module.path, args[0], kwargs.get("prediction")))
        return next_fun(*args, **kwargs)

    start = init(model, x)
    names = []

    @jax.jit
    def run(start, x, rngs):
        with nn.intercept_methods(note):
            model.apply(start, x, train=True, mutable=["batch_stats"], rngs=rngs)
        names.extend(name for name, *_ in seen)
        return [rest for _, *rest in seen]

    values = run(start, x, rngs)
    return list(zip(names, *zip(*values, strict=True), strict=True))


@pytest.mark.parametrize("prediction", ["moments"])
def test_predictions_foretell_what_comes(prediction):
    """Of 256 images, so that what comes is known: deviations and means of every channel."""
    x = jax.random.normal(jax.random.key(1), (256, 8, 8, 1))
    model = KalmanResNet(
        blocks=(1, 1),
        widths=(16, 16),
        prediction=prediction,
        norm=partial(BatchKalmanNorm, gain=1.0),
    )
    seen = calls(model, x, {"kalman": jax.random.key(0)})
    assert [path for path, *_ in seen] == model.norm_paths()
    assert seen[0][2] is None
    for path, given, predicted in seen[1:]:
        over = (0, 1, 2)
        mean, std = given.mean(over), given.std(over)
        ratio = jnp.sqrt(predicted.var[0]) / std
        # Channels and neighbouring pixels are not independent, so this is no identity.
        assert ratio.min() > 0.6, path
        assert ratio.max() < 1.6, path
        off = float(jnp.sqrt(jnp.mean(((predicted.mean[0] - mean) / std) ** 2)))
        assert off < (0.15 if prediction == "moments" else 0.6), (path, off)


@pytest.mark.slow
@pytest.mark.parametrize("strides", [2])
def test_block_follows_the_residual_rule(strides):
    rows = Moments(
        jax.random.normal(jax.random.key(0), (4, 8)),
        jax.random.uniform(jax.random.key(1), (4, 8), minval=0.5, maxval=2),
    )
    x = jax.random.normal(jax.random.key(2), (8, 6, 6, 8))
    norm = partial(BatchKalmanNorm, use_running_average=False, slice_size=2)
    features = 8 * strides
    block = KalmanBlock(
        filters=(features, features), kernel_sizes=(3, 3), strides=strides, norm=norm
    )
    (_, handed), start = jax.jit(block.init_with_output)(jax.random.key(3), x, rows)
    params = start["params"]
    # The last norm hands on mean bias = 0 and a variance that is 1 but for epsilon.
    unit = Moments(jnp.zeros((4, features)), jnp.ones((4, features)))
    last = params["conv_1"]
    size = 6 // strides
    branch = linear_moments(
        relu_moments(unit), last["kernel"], last["bias"], spatial_shape=(size, size)
    )
    skip = rows
    if strides == 2:
        inner = params["shortcut"]
        skip = linear_moments(rows, inner["kernel"], inner["bias"], spatial_shape=(6, 6), strides=2)
    expected = add_moments(skip, branch)
    assert_close(handed.mean, expected.mean, 1e-4)
    assert_close(handed.var, expected.var, 1e-4)


@pytest.mark.slow
def test_other_convolutions_can_be_sampled():
    """Weight standardization has other weights than it stores: no formula for them here."""
    method = methods.make_method("kalman-published+ws", methods.NormConfig(slice_size=4))
    fields = {**TINY, "norm": method.norm, "conv": method.conv, "dense": method.dense}
    model = method.network(**fields)
    y, _ = train(model, init(model), rngs={"kalman": jax.random.key(0)})
    assert np.isfinite(y).all()
    with pytest.raises(ValueError, match=r"`layer` \(WeightStandardizedConv\) must be an nn.Dense"):
        train(KalmanResNet(**fields), init(model))


def test_stages_must_agree():
    with pytest.raises(ValueError, match=r"`widths` \(=\(4,\)\) must have one entry per stage"):
        init(KalmanResNet(blocks=(1, 1), widths=(4,)))


def test_bad_prediction():
    with pytest.raises(
        ValueError, match=r"`prediction` \(='guess'\) must be one of 'moments', 'sa"
    ):
        make(prediction="guess").init(jax.random.key(0), X, train=False)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["kalman-published"])
def test_the_other_choices_train(norm):
    method = methods.make_method(norm, methods.NormConfig(slice_size=4))
    model = method.network(**TINY, norm=method.norm, conv=method.conv, dense=method.dense)
    state = jax.jit(partial(steps.create_state, model=model, tx=optax.sgd(0.1)))(
        jax.random.key(0), X
    )
    batch = {"image": X, "label": np.arange(8) % 10}
    step, losses = jax.jit(partial(steps.train_step)), []
    for _ in range(12):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    chex.assert_tree_all_finite((state.params, state.batch_stats))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 1.5}, r"`gain` \(=1.5\) must be in \[0, 1\]"),
        ({"slice_size": 0}, r"`slice_size` \(=0\) must be a positive number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        experiment.NormConfig(**options)
