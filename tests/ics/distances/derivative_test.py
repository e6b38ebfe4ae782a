"""The derivative of the distance, against finite differences and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from unitnorm_jax import ics


def value(x, y, *weights):
    return ics.em_distance(x, y, *weights).value


def points(n, m, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.3


@pytest.mark.parametrize("kind", ["independent", "drift", "line", "unequal", "weighted"])
def test_finite_differences(x64, kind):
    n, m, d = (6, 9, 3) if kind == "unequal" else (6, 6, 1 if kind == "line" else 3)
    x, y = points(n, m, d)
    if kind == "drift":
        y = x + 0.01 * y
    weights = (np.array([0.2, 0, 1, 2, 1, 0.5]), None) if kind == "weighted" else ()
    x, y = jnp.asarray(x), jnp.asarray(y)
    check_grads(lambda x, y: value(x, y, *weights), (x, y), order=1, eps=1e-6, rtol=1e-5)
    x_gradient, y_gradient = jax.jit(jax.grad(lambda *z: value(*z, *weights), (0, 1)))(x, y)
    # Moving all of one side along a direction, or both, changes nothing more than that.
    np.testing.assert_allclose(x_gradient.sum(0), -y_gradient.sum(0), atol=1e-12)


def test_a_step_along_the_gradient_is_a_shift():
    x = jnp.array([[0.0, 0.0], [10.0, 0.0]])
    y = x + jnp.array([[3.0, 4.0]])
    gradient = jax.grad(value)(x, y)
    np.testing.assert_allclose(gradient, [[-0.3, -0.4]] * 2, rtol=1e-6)


def test_swapped_points():
    """Where the pairing is not optimal, the plan is another one."""
    x = jnp.array([[0.0], [10.0], [5.0]])
    y = jnp.array([[11.0], [2.0], [5.0]])
    np.testing.assert_allclose(jax.grad(value)(x, y), [[-1 / 3], [-1 / 3], [0]], rtol=1e-6)


def test_points_that_coincide_have_a_subgradient():
    x = jnp.ones((3, 2))
    assert np.array_equal(jax.grad(value)(x, x), np.zeros((3, 2)))


def test_masked_points_do_not_matter():
    x = jnp.array([[0.0], [jnp.nan]])
    gradient = jax.grad(value)(x, jnp.array([[2.0], [7.0]]), *(jnp.array([1.0, 0.0]),) * 2)
    np.testing.assert_allclose(gradient, [[-1.0], [0.0]])


@pytest.mark.parametrize("weights", [(), (jnp.array([1.0, 2.0, 1.0]), None)])
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_any_scale_has_the_same_derivative(scale, weights):
    """Squares of these numbers overflow, or underflow to 0."""
    x, y = (jnp.asarray(z, jnp.float32) for z in points(3, 3))
    gradient = jax.grad(value)(x, y, *weights)
    np.testing.assert_allclose(
        jax.grad(value)(scale * x, scale * y, *weights), gradient, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("weights", [(), (jnp.array([1.0, 2.0, 1.0]), None)])
def test_what_is_not_finite_shows_and_raises_nothing(weights):
    x, y = (jnp.asarray(z, jnp.float32) for z in points(3, 3))
    distance, gradient = jax.value_and_grad(value)(x.at[0, 0].set(jnp.nan), y, *weights)
    assert np.isnan(distance)
    assert np.isnan(gradient).any()


def test_vmap_and_bounds():
    x, y = (jnp.asarray(z, jnp.float32) for z in points(5, 5))
    several = jnp.stack([x, x[::-1], 2 * x])
    gradients = jax.vmap(jax.grad(value), (0, None))(several, y)
    for one, gradient in zip(several, gradients, strict=True):
        np.testing.assert_allclose(gradient, jax.grad(value)(one, y), rtol=1e-5, atol=1e-7)
    bounds = lambda x: sum(ics.em_distance(x, y)[1:3])  # noqa: E731
    assert np.array_equal(jax.grad(bounds)(x), np.zeros_like(x))


def test_a_penalty_on_drift_is_one_line():
    x = jnp.asarray(points(8, 8)[0], jnp.float32)
    before = jnp.eye(3)

    def penalty(w):
        return value(x @ w, jax.lax.stop_gradient(x @ before))

    w = before + 0.1 * jnp.asarray(points(3, 3)[1], jnp.float32)
    start = penalty(w)
    for _ in range(20):
        w = w - 0.02 * jax.grad(penalty)(w)
    assert penalty(w) < 0.5 * start
