"""The derivative of the Earth Mover distance with respect to the points."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.ics.distances import _rounding, _samples
from unitnorm_jax.ics.distances._assignment import scipy_assignment
from unitnorm_jax.ics.distances._cost import cost_matrix
from unitnorm_jax.ics.distances._transport import Plan, scipy_plan

_SAME = 1e-5  # a pairing that costs no more than this beyond the value has its derivative


def with_derivative(value: jax.Array, x: Any, y: Any, weights: tuple[Any, Any] | None) -> jax.Array:
    """Return the value; where it is differentiated, by the envelope theorem.

    Args:
        value: W1 of x and y, without a derivative.
        x: The points (n, ...), as given.
        y: The points (m, ...), as given.
        weights: Of both sides, or None for each; None: equal ones of as many points.

    Returns:
        The value.
    """
    traced = [
        isinstance(z, jax.core.Tracer) and jnp.issubdtype(z.dtype, jnp.floating) for z in (x, y)
    ]
    if not any(traced):
        return value
    x, y = (jnp.asarray(z).reshape(z.shape[0], -1).astype(value.dtype) for z in (x, y))
    if weights is None:
        return _paired_value(value, x, y)
    given = [
        jnp.ones(len(z), value.dtype) if w is None else jnp.asarray(w).astype(value.dtype)
        for z, w in zip((x, y), weights, strict=True)
    ]
    return _weighted_value(value, x, y, *map(lax.stop_gradient, given))


@jax.custom_jvp
def _paired_value(value: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    del x, y
    return value


@_paired_value.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    value, x, y = primals
    rows = jnp.arange(len(x), dtype=jnp.int32)
    s = _solvable(x, y)
    paired = _samples.mean(_samples.norms(s.x - s.y))
    found = _rounding.times_power_of_two(value, s.exponent) * (1 + _SAME)
    # Of a value that is not finite there is no derivative, and a solver would raise.
    columns = lax.cond(
        s.finite & (paired > found), lambda: scipy_assignment(cost_matrix(s.x, s.y)), lambda: rows
    )
    plan = Plan(rows, columns, jnp.full(len(x), 1 / len(x), x.dtype))
    return value, _shown(value) * _change(plan, x, y, *tangents[1:])


@jax.custom_jvp
def _weighted_value(
    value: jax.Array, x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array
) -> jax.Array:
    del x, y, a, b
    return value


@_weighted_value.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    value, x, y, a, b = primals
    # Points of weight 0 may hold anything.
    x, y = (jnp.where(w[:, None] > 0, z, 0) for z, w in ((x, a), (y, b)))
    s = _solvable(x, y)
    plan = scipy_plan(jnp.where(s.finite, cost_matrix(s.x, s.y), 0), a, b)
    return value, _shown(value) * _change(plan, x, y, *tangents[1:3])


def _solvable(x: jax.Array, y: jax.Array) -> _samples.Samples:
    """Return the points without a derivative, scaled so that no square overflows."""
    return _samples.scaled(_samples.Given(*lax.stop_gradient((x, y)), None, None))


def _shown(value: jax.Array) -> jax.Array:
    """Return 1, or NaN where the value is not finite: a factor, so that gradients show it."""
    return jnp.where(jnp.isfinite(value), 1, jnp.nan).astype(value.dtype)


def _change(plan: Plan, x: jax.Array, y: jax.Array, dx: jax.Array, dy: jax.Array) -> jax.Array:
    """Return ``sum over arcs of mass <unit vector, dx - dy>``."""
    apart = x[plan.rows] - y[plan.columns]  # (arcs, d)
    scale = jnp.max(jnp.abs(apart), axis=1, keepdims=True)
    moved = (scale > 0) & (plan.mass > 0)[:, None]
    apart = jnp.where(moved, apart / jnp.where(moved, scale, 1), 1)
    units = apart / jnp.linalg.norm(apart, axis=1, keepdims=True)
    units = jnp.where(moved, units, 0)
    change = jnp.where(moved, dx[plan.rows] - dy[plan.columns], 0)
    return jnp.sum(plan.mass[:, None] * units * change)
