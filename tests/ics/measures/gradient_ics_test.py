"""Gradient ICS by hand, and against the optimizer's own step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unitnorm_jax.ics import measures

RNG = np.random.default_rng(0)


def two_layers():
    params = {
        "first": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)},
        "second": {"kernel": RNG.normal(size=(4, 2))},
    }
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    x, target = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((5, 3), (5, 2)))

    def loss(p):
        hidden = jnp.tanh(x @ p["first"]["kernel"] + p["first"]["bias"][None, :])
        return jnp.square(hidden @ p["second"]["kernel"] - target).sum() / 2

    def second_gradient(p):
        """By hand, in float64."""
        a, b, w, v, t = (
            np.asarray(z, np.float64)
            for z in (*p["first"].values(), x, p["second"]["kernel"], target)
        )
        kernel, bias = (a, b) if a.ndim == 2 else (b, a)
        hidden = np.tanh(w @ kernel + bias)
        return hidden.T @ (hidden @ v - t)

    return params, loss, second_gradient


def test_gradient_ics_by_hand():
    params, loss, second_gradient = two_layers()
    after = jax.tree.map(lambda p: p * 1.1 - 0.05, params)
    found = jax.jit(lambda p, q: measures.gradient_ics(loss, p, q, layers=("first", "second")))(
        params, after
    )
    g = second_gradient(params)
    moved = second_gradient({"first": after["first"], "second": params["second"]})
    assert float(found.distance[0]) == 0
    assert float(found.cosine[0]) == pytest.approx(1, abs=1e-6)
    assert float(found.distance[1]) == pytest.approx(np.linalg.norm(g - moved), rel=1e-4)
    cosine = (g * moved).sum() / np.linalg.norm(g) / np.linalg.norm(moved)
    assert float(found.cosine[1]) == pytest.approx(cosine, rel=1e-4)
    assert float(found.norm[1]) == pytest.approx(np.linalg.norm(g), rel=1e-5)


def test_a_loss_is_compiled_once():
    """Calls with other arrays trace nothing, and are what the one program under jit returns."""
    traces = []

    def loss(p, x):
        traces.append(x)
        return jnp.sin(jnp.tanh(x @ p["a"]) @ p["b"]).sum()

    params = {"a": jnp.eye(3), "b": jnp.arange(6.0).reshape(3, 2)}
    after = jax.tree.map(lambda p: p + 0.1, params)

    def shift(x):
        return measures.gradient_ics(loss, params, after, layers=("a", "b"), args=(x,))

    shift(jnp.ones((4, 3)))
    before = len(traces)
    x = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    found = shift(x)
    assert len(traces) == before
    for one, other in zip(found, jax.jit(shift)(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert found.distance[1] > 0.01


def test_a_loss_without_args_is_read_anew():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    scale = {"now": 1.0}

    def loss(p):
        return scale["now"] * (p["a"] * p["b"]).sum()

    first = measures.gradient_ics(loss, params, params, layers=("a", "b"))
    scale["now"] = 2.0
    second = measures.gradient_ics(loss, params, params, layers=("a", "b"))
    np.testing.assert_allclose(second.norm, 2 * first.norm)


def test_gradient_ics_makes_the_update_itself():
    params, loss, _ = two_layers()
    optimizer = optax.sgd(0.1)
    step, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
    layers = ("first", "second")
    given = measures.gradient_ics(loss, params, optax.apply_updates(params, step), layers=layers)
    made = measures.gradient_ics(loss, params, layers=layers, optimizer=optimizer)
    np.testing.assert_allclose(given.distance, made.distance, rtol=1e-5)
    zero = measures.gradient_ics(lambda p: 0.0, params, params, layers=layers)
    assert np.array_equal(zero.cosine, [1, 1])


def test_nested_names_belong_to_the_longest():
    params = {"block": {"conv": jnp.ones(1), "head": jnp.ones(1)}, "block2": jnp.ones(1)}
    loss = lambda p: sum(jax.tree.leaves(p))[0] ** 2 / 2  # noqa: E731
    after = jax.tree.map(lambda p: p + 1, params)
    found = measures.gradient_ics(loss, params, after, layers=("block/conv", "block", "block2"))
    np.testing.assert_allclose(found.distance, [0, 1, 2])


PARAMS = {"a": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: measures.gradient_ics(
                lambda p: p["a"].sum(), PARAMS, {"a": np.ones(1, np.float32)}, layers=("a",)
            ),
            r"'a' is float32\[1\] where it was float32\[2\]",
        ),
        (
            lambda: measures.gradient_ics(
                lambda p: p["a"].sum(), PARAMS, {"a": jnp.ones(2, jnp.bfloat16)}, layers=("a",)
            ),
            r"'a' is bfloat16\[2\] where it was float32\[2\]",
        ),
        (
            lambda: measures.gradient_ics(
                lambda p, flag: p["a"].sum(), PARAMS, PARAMS, layers=("a",), args=(True,)
            ),
            "`args` must be arrays, but has True",
        ),
        (
            lambda: measures.gradient_ics(lambda p: p["a"].sum(), PARAMS, PARAMS, layers=()),
            "'a' belongs to none",
        ),
        (
            lambda: measures.gradient_ics(lambda p: 0.0, PARAMS, PARAMS, layers=("a", "b")),
            "'b', which has no parameter",
        ),
        (
            lambda: measures.gradient_ics(lambda p: p["a"].sum(), PARAMS, layers=("a",)),
            "`updated` and `optimizer` are both None",
        ),
        (
            lambda: measures.gradient_ics(lambda p: p["a"].sum(), PARAMS, {"b": 0}, layers=("a",)),
            "structure of `params`",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
