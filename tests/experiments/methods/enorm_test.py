"""Equi-normalization of the experiments' networks, between updates of an optimizer."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods, models
from experiments.methods import NormConfig
from experiments.methods.enorm import balance_state, rescale_optimizer
from experiments.models.preact_groups import preact_groups
from experiments.training import steps
from tests.oracle import assert_close
from unitnorm_jax.contrib.enorm import enorm_factors, enorm_rescale

X = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
BATCH = {"image": X, "label": np.arange(6, dtype=np.int32)}
SGD = optax.sgd(0.05, momentum=0.9, nesterov=True)
NETS = {
    "plain": {"blocks": (2, 1), "widths": (4, 6)},
    # The first stage has a shortcut too, for the width changes.
    "bottleneck": {"blocks": (1, 1), "widths": (2, 3), "bottleneck": True},
}


@functools.cache
def make_state(norm: str, net: str = "plain"):
    """Every parameter, statistic and momentum moved off its initial value."""
    # Without epsilon in the way, what a balanced network computes is the same to rounding.
    model = models.PreActResNet(**NETS[net], norm=methods.make_norm(norm, epsilon=1e-12))
    state = jax.jit(functools.partial(steps.create_state, model=model, tx=SGD))(
        jax.random.key(1), X
    )

    def moved(tree, seed):
        leaves, structure = jax.tree.flatten(tree)
        rng = np.random.default_rng(seed)
        new = [
            np.float32(leaf * rng.uniform(0.3, 3, leaf.shape) + rng.uniform(0.1, 0.3, leaf.shape))
            for leaf in leaves
        ]
        return jax.tree.unflatten(structure, map(jnp.asarray, new))

    return state.replace(
        step=jnp.int32(1),
        params=moved(state.params, 2),
        batch_stats=moved(state.batch_stats, 3),
        opt_state=(state.opt_state[0]._replace(trace=moved(state.params, 4)), state.opt_state[1]),
    )


@functools.partial(jax.jit, static_argnames="train")
def logits(state, train=False):
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    y = state.apply_fn(variables, X, train=train, mutable=["batch_stats"] if train else False)
    return y[0] if train else y


@jax.jit
def factors_of(params):
    return enorm_factors(params, preact_groups(params)[0])


balance = jax.jit(balance_state, static_argnames=("every", "c", "p"))


@pytest.mark.parametrize(
    ("norm", "net"), [pytest.param("none", "bottleneck", marks=pytest.mark.slow), ("ubn", "plain")]
)
def test_the_function_stays(norm, net):
    before = make_state(norm, net)
    after = balance(before)
    for train_mode in (False, True) if norm != "none" else (False,):
        assert_close(logits(after, train_mode), logits(before, train_mode), 1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a / b - 1).max() > 1e-3, before.params, after.params)
    # Only alpha and what the classifier adds have no scale.
    leaves = jax.tree_util.tree_leaves_with_path(moved)
    still = {jax.tree_util.keystr(path[-2:]) for path, leaf in leaves if not leaf}
    assert {name for name in still if "alpha" not in name} == {"['head']['bias']"}


def test_a_stream_has_one_scale_for_all_that_write_to_it():
    """The first stage of the plain network, restated in numpy."""
    params = make_state("none").params
    kernel = {
        name: np.asarray(leaf, np.float64)
        for name, leaf in {
            "stem": params["stem_conv"]["kernel"],
            **{
                f"{b}{j}": params[f"block_{b}"][f"conv_{j}"]["kernel"]
                for b in range(3)
                for j in range(2)
            },
            "shortcut": params["block_2"]["shortcut"]["kernel"],
        }.items()
    }
    into = sum(np.square(kernel[name]).sum((0, 1, 2)) for name in ("stem", "01", "11"))
    out = sum(np.square(kernel[name]).sum((0, 1, 3)) for name in ("00", "10", "20", "shortcut"))
    d = (out / into) ** 0.25
    factors = factors_of(params).params
    for name in ("stem_conv", "block_0/conv_1", "block_1/conv_1"):
        leaf = functools.reduce(lambda tree, key: tree[key], name.split("/"), factors)
        assert_close(leaf["bias"], d, 1e-6)
    inner = factors["block_0"]["conv_0"]
    assert_close(inner["kernel"][0, 0], inner["bias"][None] / d[:, None], 1e-6)


def test_depths():
    _, depths = preact_groups(make_state("none").params)
    assert depths == {
        "stem_conv": 0,
        **{f"block_{b}/conv_{j}": 1 + 2 * b + j for b in range(3) for j in range(2)},
        "block_2/shortcut": 5,
        "head": 7,
    }


@pytest.mark.slow
def test_the_optimizer_is_that_of_the_balanced_network(x64):
    """Its buffers after a gradient of the balanced network are those before, rescaled."""
    state = make_state("none")
    state = state.replace(params=jax.tree.map(lambda a: a.astype(float), state.params))
    factors = factors_of(state.params)
    balanced = state.replace(params=enorm_rescale(state.params, factors.params))
    assert_close(logits(balanced), logits(state), 1e-13)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(jnp.sin(0.01 * logits(state.replace(params=params))))

    before, after = gradient(state.params), gradient(balanced.params)
    for tx in (optax.sgd(0.1, momentum=0.9), optax.adamw(0.1)):
        first, second = (tx.update(grad, tx.init(grad), grad)[1] for grad in (before, after))
        close = functools.partial(assert_close, tol=1e-9)
        jax.tree.map(close, second, rescale_optimizer(first, factors))


def test_an_unknown_optimizer_is_named():
    state = make_state("none")
    factors = factors_of(state.params)
    with pytest.raises(ValueError, match=r"keeps arrays other than the momentum .* optax.sgd"):
        rescale_optimizer(optax.adagrad(0.1).init(state.params), factors)


def test_every_other_update():
    state = make_state("none")
    step = jax.jit(functools.partial(steps.train_step))  # with a cache of its own
    every = functools.partial(balance_state, every=2)
    once = chex.assert_max_traces(steps.train_step, n=1)
    balanced_step = jax.jit(functools.partial(once, after_update=every))
    balanced, states = state, []
    for _ in range(2):
        balanced, _ = balanced_step(balanced, BATCH)
        states.append(balanced)
    # state has made one update already: the first of these is the second, and is balanced.
    close = functools.partial(assert_close, tol=2e-6)
    jax.tree.map(close, states[0].params, balance(step(state, BATCH)[0]).params)
    jax.tree.map(close, states[1].params, step(states[0], BATCH)[0].params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: methods.check_norm("gn+enorm"),
            r"norm \(='gn\+enorm'\) would change what the net",
        ),
        (
            lambda: methods.check_norm("none+ENORM"),
            r"conv \(='ENORM' in 'none\+ENORM'\) is unknown",
        ),
        (lambda: NormConfig(enorm_c=0.0), r"`enorm_c` \(=0.0\) must be a positive number"),
        (lambda: NormConfig(enorm_p=-1.0), r"`enorm_p` \(=-1.0\) must be a positive number"),
        (lambda: NormConfig(enorm_every=0), r"`enorm_every` \(=0\) must be a positive number"),
        (
            lambda: preact_groups({"Dense_0": {"kernel": X}}),
            r"no layer 'stem_conv' with a `kernel`; equi-normalization knows .* Leave \+enorm away",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
