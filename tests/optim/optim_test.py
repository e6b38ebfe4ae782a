"""Labels, masks, projection, freezing and setting of alpha, in optax and in nnx's optimizer."""

from typing import Any, NamedTuple

import flax.linen as nn
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import core, nnx
from flax.training.train_state import TrainState

from unitnorm_jax import linen, optim


def params(box=lambda leaf: leaf):
    norm = {name: box(jnp.full(3, 0.5)) for name in ("alpha", "bias", "scale")}
    return {
        "block": {"norm": norm, "dense": {"kernel": jnp.ones((2, 3))}},
        "bare": {"alpha": jnp.full(2, 0.5)},
        "prelu": {"alpha": jnp.full(2, 0.5), "kernel": jnp.ones((2, 2))},
    }


ALPHAS = {("block", "norm", "alpha"), ("bare", "alpha")}


class Norm(nnx.BatchNorm):
    """Stands for the layer of nnx: the same variables and an alpha."""

    def __init__(self, features):
        super().__init__(features, rngs=nnx.Rngs(0))
        self.alpha = nnx.Param(jnp.full(features, 0.5))

    def __call__(self, x):
        return super().__call__(x) * (1 - self.alpha[None])


class Net(nnx.Module):
    def __init__(self):
        self.norms = nnx.List([Norm(3)])

    def __call__(self, x):
        return self.norms[0](x)


def nnx_params():
    return nnx.state(Net(), nnx.Param)


TREES = {
    "dictionary": params,
    "frozen": lambda: core.freeze(params()),
    "boxed": lambda: params(lambda leaf: nn.Partitioned(leaf, ("model",))),
    "nnx": nnx_params,
    "state of nnx": lambda: nnx.state(Net()),
    "collections": lambda: {"params": params(), "batch_stats": {"bare": {"mean": jnp.zeros(2)}}},
}


def by_path(tree):
    """Leaves by the names in their paths, without collection, box and variable."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    names = [tuple(getattr(k, "key", getattr(k, "name", None)) for k in path) for path, _ in flat]
    short = [tuple(n for n in at if n not in ("value", "params")) for at in names]
    return dict(zip(short, (leaf for _, leaf in flat), strict=True))


def alphas(name):
    return {("norms", 0, "alpha")} if "nnx" in name else ALPHAS


@pytest.mark.parametrize("name", TREES)
def test_labels_and_masks(name):
    tree = TREES[name]()
    labels, only, rest = (
        by_path(f(tree)) for f in (optim.alpha_labels, optim.only_alpha, optim.all_but_alpha)
    )
    assert {path for path, label in labels.items() if label == "alpha"} == alphas(name)
    assert set(labels.values()) == {"alpha", "other"}
    assert {path for path, chosen in only.items() if chosen} == alphas(name)
    assert {path for path, chosen in rest.items() if not chosen} == alphas(name)
    assert jax.tree.structure(optim.alpha_labels(tree)) == jax.tree.structure(tree)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("value", [0.25, jnp.array(0.25), lambda alpha: alpha / 2])
def test_set_alpha(name, value):
    tree = TREES[name]()
    out = jax.jit(lambda tree: optim.set_alpha(tree, value))(tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    before, after = by_path(tree), by_path(out)
    for path, leaf in after.items():
        expected = np.full(leaf.shape, 0.25) if path in alphas(name) else before[path]
        np.testing.assert_array_equal(leaf, expected)
        assert leaf.dtype == before[path].dtype


def test_set_alpha_of_a_train_state():
    state = TrainState.create(apply_fn=None, params=params(), tx=optax.adam(0.1))
    out = optim.set_alpha(state)
    np.testing.assert_array_equal(out.params["bare"]["alpha"], np.zeros(2))
    assert out.opt_state is state.opt_state
    model = Net()
    nnx.update(model, optim.set_alpha(nnx.state(model), 0.125))
    np.testing.assert_array_equal(model.norms[0].alpha[...], np.full(3, 0.125))


@pytest.mark.parametrize("tree", [{}, {"prelu": {"alpha": jnp.ones(2), "kernel": jnp.ones(2)}}])
def test_set_alpha_where_there_is_none(tree):
    with pytest.raises(ValueError, match="`tree` has no alpha: no leaf of that name in a layer"):
        optim.set_alpha(tree)


def updated(tx, tree, grads):
    """Parameters after two updates; the gradient is the same both times."""

    @jax.jit
    def step(tree, state):
        updates, state = tx.update(grads, state, tree)
        return optax.apply_updates(tree, updates), state

    state = tx.init(tree)
    for _ in range(2):
        tree, state = step(tree, state)
    return by_path(tree)


ALPHA_RATE = optax.multi_transform(
    {"alpha": optax.sgd(0.25), "other": optax.sgd(1.0)}, optim.alpha_labels
)
# What becomes of 0.5 at gradient 1, twice: of alpha, and of all others.
CASES = {
    "rate": (ALPHA_RATE, 0.0, -1.5),
    "clip": (optax.chain(optax.sgd(0.375), optim.clip_alpha()), 0.0, -0.25),
    "clip within": (optax.chain(optax.sgd(0.125), optim.clip_alpha()), 0.25, 0.25),
    "clip above": (optax.chain(optax.sgd(-0.375), optim.clip_alpha()), 1.0, 1.25),
    "clip to less": (optax.chain(optax.sgd(0.5), optim.clip_alpha(0.25, 0.75)), 0.25, -0.5),
    "freeze": (optax.chain(optax.sgd(0.125), optim.freeze_alpha()), 0.5, 0.25),
    "no decay": (
        optax.chain(optax.add_decayed_weights(1.0, optim.all_but_alpha), optax.sgd(0.125)),
        0.25,
        0.5 - 0.125 * 1.5 - 0.125 * (1 + 0.5 - 0.125 * 1.5),
    ),
    "masked": (optax.masked(optax.set_to_zero(), optim.only_alpha), 0.5, 2.5),
    "clip of a part": (
        optax.chain(optax.sgd(0.375), optax.masked(optim.clip_alpha(), optim.only_alpha)), 0.0,
        -0.25,
    ),
    "alone": (optim.clip_alpha(), 1.0, 2.5),
    "many steps": (
        optax.MultiSteps(optax.chain(optax.sgd(1.0), optim.clip_alpha()), 2), 0.0, -0.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["dictionary", "boxed", "nnx"])
def test_transformations(name, case):
    tx, of_alpha, of_rest = CASES[case]
    tree = optim.set_alpha(TREES[name](), 0.5)
    tree = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), tree)
    for path, leaf in updated(tx, tree, jax.tree.map(jnp.ones_like, tree)).items():
        expected = of_alpha if path in alphas(name) else of_rest
        np.testing.assert_allclose(leaf, np.full(leaf.shape, expected), rtol=1e-6)


def test_the_optimizer_of_nnx():
    model = Net()
    tx = optax.chain(optax.sgd(10.0), optim.clip_alpha())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = 1 + jax.random.normal(jax.random.key(0), (4, 3))
    scale = model.norms[0].scale[...]

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.sum(model(x) ** 2))(model)
        optimizer.update(model, grads)

    step(model, optimizer)
    np.testing.assert_array_equal(model.norms[0].alpha[...], np.ones(3))
    assert np.abs(model.norms[0].scale[...] - scale).min() > 0.1


FLOATS = {
    name: hnp.arrays(np.float32, 8, elements=st.floats(-low, low, width=32))
    for name, low in {"alpha": 2.0, "update": 1e4}.items()
}


@hypothesis.given(
    alpha=FLOATS["alpha"],
    update=FLOATS["update"],
    bounds=st.lists(st.floats(-1, 1.5, width=16), min_size=2, max_size=2).map(sorted),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_the_projection_keeps_the_bounds_exactly(alpha, update, bounds, dtype):
    """In the dtype of alpha, after the sum of optax; where it does not clip it changes nothing."""
    tree = {"norm": {"alpha": jnp.asarray(alpha, dtype)}}
    updates = {"norm": {"alpha": jnp.asarray(update, dtype)}}
    low, high = (float(jnp.asarray(bound, dtype)) for bound in bounds)
    tx = optim.clip_alpha(*bounds)
    new, _ = tx.update(updates, tx.init(tree), tree)
    after = np.asarray(optax.apply_updates(tree, new)["norm"]["alpha"], np.float32)
    assert after.min() >= low
    assert after.max() <= high
    free = np.asarray(optax.apply_updates(tree, updates)["norm"]["alpha"], np.float32)
    ulps = 2 * float(jnp.finfo(dtype).eps) * (np.abs(alpha) + 1)
    assert (np.abs(after - np.clip(free, low, high)) <= ulps).all()


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))], ids=str)
def test_bad_bounds(bounds):
    with pytest.raises(ValueError, match=r"`lower` \(=.*\) and `upper` \(=.*\) must be finite"):
        optim.clip_alpha(*bounds)


def test_the_projection_needs_parameters():
    tx = optim.clip_alpha()
    with pytest.raises(ValueError, match="`clip_alpha` needs the parameters: call"):
        tx.update(params(), tx.init(params()))


class Alike(NamedTuple):
    params: Any

    def replace(self, params):
        return self._replace(params=params)


def test_what_is_like_a_train_state():
    tree = {"bare": {"alpha": jnp.ones(2)}}
    assert optim.set_alpha(Alike(tree), 0.5).params["bare"]["alpha"].tolist() == [0.5, 0.5]


def test_a_model_of_the_library():
    """Every alpha of a unitized model is found, and nothing else."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = linen.BatchNorm(use_running_average=True)(nn.Dense(3)(x))
            return linen.BatchNorm(use_running_average=True, use_scale=False)(nn.PReLU()(x))

    tree = Net().init(jax.random.key(0), jnp.ones((2, 3)))["params"]
    found = {path for path, one in by_path(optim.only_alpha(tree)).items() if one}
    assert found == {("BatchNorm_0", "alpha"), ("BatchNorm_1", "alpha")}
