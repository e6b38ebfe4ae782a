"""The three residual networks of independent-component layers, against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods, models
from experiments.methods import NormConfig, make_method
from experiments.models.ic_resnet import ORDERS
from experiments.training import steps
from tests.oracle import assert_close

X = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
KEY = jax.random.key(3)
TINY = {"blocks": (1, 1), "widths": (4, 6)}
each_order = pytest.mark.parametrize("order", ORDERS)


@functools.cache
def variables(order, **fields):
    model = models.ICResNet(**TINY, order=order, **fields)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(1), X)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype) / leaf.size**0.3  # noqa: E731
    return jax.tree.map(draw, shapes)


def by_formula(order, variables, x):
    """The network at inference, layer by layer as the formulas read."""
    params, stats = variables["params"], variables["batch_stats"]

    def at(tree, path):
        return functools.reduce(lambda node, name: node[name], path.split("/"), tree)

    def conv(path, x, strides=1):
        layer = at(params, path)
        y = jax.lax.conv_general_dilated(
            x,
            layer["kernel"],
            (strides, strides),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + layer["bias"][None, None, None]

    def ic(path, x):
        p, s = at(params, path), at(stats, path)
        xhat = (x - s["mean"][None, None, None]) / jnp.sqrt(s["var"] + 1e-5)[None, None, None]
        return xhat * p["scale"][None, None, None] + p["bias"][None, None, None]

    relu = jax.nn.relu
    x = conv("stem_conv", x)
    if order == "ic-conv-relu":
        x = relu(x)
    if order == "conv-relu-ic":
        x = ic("stem_norm", relu(x))
    for b, strides in (("block_0", 1), ("block_1", 2)):
        if order == "relu-ic-conv":
            h = conv(f"{b}/conv_0", ic(f"{b}/norm_0", relu(x)), strides)
            h = conv(f"{b}/conv_1", ic(f"{b}/norm_1", relu(h)))
        elif order == "ic-conv-relu":
            h = relu(conv(f"{b}/conv_0", ic(f"{b}/norm_0", x), strides))
            h = relu(conv(f"{b}/conv_1", ic(f"{b}/norm_1", h)))
        else:
            h = ic(f"{b}/norm_0", relu(conv(f"{b}/conv_0", x, strides)))
            h = ic(f"{b}/norm_1", relu(conv(f"{b}/conv_1", h)))
        x = h + (x if strides == 1 else conv(f"{b}/shortcut", x, strides))
    if order == "relu-ic-conv":
        x = ic("head_norm", relu(x))
    if order == "ic-conv-relu":
        x = ic("head_norm", x)
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"][None]


@each_order
def test_inference_is_the_formula(order):
    model = models.ICResNet(**TINY, order=order)
    y = jax.jit(functools.partial(model.apply, train=False))(variables(order), X)
    assert_close(y, jax.jit(functools.partial(by_formula, order))(variables(order), X), 1e-5)


@each_order
def test_layers_and_their_paths(order):
    model = models.ICResNet(**TINY, order=order)
    stats = variables(order)["batch_stats"]
    paths = {
        tuple(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(stats)
    }
    assert set(model.norm_paths()) == paths
    assert len(paths) == len(model.norm_paths())


def test_bottleneck():
    model = models.ICResNet(blocks=(1,), widths=(2,), bottleneck=True)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), KEY, X)
    assert shapes["params"]["block_0"]["conv_2"]["kernel"].shape == (1, 1, 2, 8)
    assert ("block_0", "norm_2") in model.norm_paths()


@pytest.mark.parametrize("name", ["ic"])
def test_training_draws_new_masks_and_learns(name):
    method = make_method(name, NormConfig(ic_rate=0.2, momentum=0.5))
    model = method.network(**TINY, norm=method.norm, conv=method.conv, dense=method.dense)
    create = functools.partial(steps.create_state, model=model, tx=optax.sgd(0.03, momentum=0.9))
    state = jax.jit(create)(jax.random.key(1), X)
    batch = {"image": X, "label": np.arange(6, dtype=np.int32)}
    step = jax.jit(functools.partial(steps.train_step))  # with a cache of its own
    # The same state and batch at another update: only the masks differ.
    first, second = (
        float(step(state.replace(step=jnp.int32(t)), batch)[1]["loss"]) for t in (0, 1)
    )
    assert abs(first - second) > 1e-3
    losses = []
    for t in range(30):
        state, metrics = step(state.replace(step=jnp.int32(t)), batch)
        losses.append(float(metrics["cross_entropy"]))
    assert losses[-1] < 0.6 * losses[0]


def test_errors():
    with pytest.raises(ValueError, match=r"`order` \(='bn'\) is unknown; choose from relu-ic-conv"):
        models.ICResNet(order="bn").norm_paths()
    with pytest.raises(ValueError, match=r"`widths` \(=\(4,\)\) must have one entry per stage"):
        models.ICResNet(blocks=(1, 1), widths=(4,)).init(KEY, X, train=False)
    with pytest.raises(ValueError, match=r"`ic_rate` \(=1.0\) must be in \[0, 1\)"):
        NormConfig(ic_rate=1.0)
    with pytest.raises(ValueError, match="replaces more of the network than its normalization"):
        methods.make_norm("ic")
    with pytest.raises(ValueError, match=r"norm \(='ic\+enorm'\) would change what the network"):
        methods.check_norm("ic+enorm")
