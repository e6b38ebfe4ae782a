"""The Earth Mover distance between two samples, with a certificate."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._cascade import EMDistance, Options, Problem, cascade, sort_bounds
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._cost import cost_matrix
from unitnorm_jax.ics.distances._derivative import with_derivative
from unitnorm_jax.ics.distances._samples import (
    Given,
    as_matrices,
    check_method,
    check_samples,
    check_weights,
    given,
    room,
)
from unitnorm_jax.ics.distances._weights import (
    Weights,
    given_weights,
    normalized,
    same_weights,
    used_rows,
)


def em_distance(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "m ..."],
    x_weights: Shaped[Array | np.ndarray, " n"] | None = None,
    y_weights: Shaped[Array | np.ndarray, " m"] | None = None,
    *,
    method: str | Solver = "auto",
    tolerance: float | int = 1e-5,
    max_iterations: int = 16,
    sinkhorn_epsilon: float | int = 0.01,
    sinkhorn_iterations: int = 1000,
) -> EMDistance:
    """1-Wasserstein (Earth Mover) distance of two samples, Euclidean cost, with a certificate.

    ::

        W1 = min over couplings P of sum_ij P_ij |x_i - y_j|
           = max over f, g with f_i + g_j <= |x_i - y_j| of sum_i a_i f_i + sum_j b_j g_j

    Any coupling bounds it above and any feasible (f, g) below, so each step of the cascade is a
    proof or is not needed:

    1. one axis (d = 1), equal weights: sorting is exact;
    2. the identity pairing, x_i to y_i, bounds it above: after a small update of a network,
       with the same inputs in the same order, it is usually optimal;
    3. Bellman-Ford potentials (`pairing_potential`) bound it below, and meet step 2 if the
       pairing is optimal;
    4. where a gap stays open, and only there, a solver. Equal and unweighted samples: an
       assignment, by scipy on the host or by `method`; then step 3 for its pairing, which
       proves it. (Step 3 is left out before it where two points had better swap partners.)
       Else: a linear program on the host, or Sinkhorn.

    Rounding. The numbers given are taken as exact; costs come from direct differences and
    carry an a-priori error (`cost_error`), every sum runs along a tree of known depth, and
    lower and upper are widened by both: where the cascade closes they are 4e-6 to 1e-5 of the
    distance apart in float32 (n to 4096, d to 10^6), whatever the offset of the data and
    however small the drift. Both hold for W1 in exact arithmetic, given IEEE arithmetic in which
    sums keep their order, XLA's default (tested on CPU; not yet run on a GPU or TPU). XLA does
    move constant factors, and makes s^2 / n^2 of (s / n)^2: points are scaled to leave room.
    Numbers below the smallest normal one count as 0, as in the hardware.

    Under jit, shapes are static. Under `jax.vmap` both branches of step 4 run for every element
    and the loops run in lockstep: use `jax.lax.map`. Memory: a few (n, m) matrices and a copy
    of x and y.

    The value has a derivative with respect to the points, in forward and reverse mode, also under
    jit and vmap: ``dW1 = sum_ij P_ij <u_ij, dx_i - dy_j>``, with P an optimal plan and u_ij the
    unit vector from y_j to x_i, 0 where they coincide (the envelope theorem; a subgradient where
    several plans are optimal or points coincide). It looks for the plan again, on the host, where
    the pairing is not optimal. Weights and bounds have no derivative.

    Args:
        x: Before, (n, ...), n >= 1; all axes but the first are one vector. Computed in float32
            (under x64, where there are float64 or integers, in float64). Of float64 and int64 of
            numpy without x64, and of integers above 2^24, differences are taken before they are
            rounded, and what is rounded widens the certificate. bool counts as 0 and 1.
        y: After, (m, ...), the same trailing shape.
        x_weights: Nonnegative weights (n,) of any real dtype, default equal; normalised to sum 1.
            The linear program has all of their digits. Points of weight 0 are ignored, whatever
            they hold (a mask, NaN included).
        y_weights: Likewise (m,).
        method: "auto": the cascade, with the host solvers. "pairing": steps 1-3 only, no solver.
            "scipy": always solve on the host. "sinkhorn": always Sinkhorn, no host callback. A
            callable (n, n) costs -> column of each row, or (rows, columns): in the place of scipy
            in the cascade, for accelerators, for example ``optax.assignment.hungarian_algorithm``;
            only for equal, unweighted samples. What it returns is checked and certified, so a poor
            solver gives wide bounds, not wrong ones.
        tolerance: Relative gap (upper - lower) / upper that counts as exact, and at which the
            cascade stops.
        max_iterations: Bound on the Bellman-Ford iterations of step 3.
        sinkhorn_epsilon: Regularisation, relative to the mean cost.
        sinkhorn_iterations: Bound on the Sinkhorn iterations.

    Returns:
        `EMDistance` of scalars in the working dtype (at least float32). NaN in value, lower and
        upper, exact False, if a point of positive weight is not finite, or the weights are
        negative, not finite or all 0.

    Raises:
        ValueError: If shapes do not match, samples are empty, complex or beyond the range of
            float32, or `method` does not exist or cannot treat the samples.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0, 0.0], [10.0, 0.0]])
        >>> d = em_distance(x, x + jnp.array([[3.0, 4.0]]))
        >>> float(d.value), bool(d.lower <= 5 <= d.upper), bool(d.exact)
        (5.0, True, True)

    References:
        L. Kantorovich, On the translocation of masses, 1942; Y. Huang, Y. Yu, An internal
        covariate shift bounding algorithm for deep neural networks by unitizing layers' outputs,
        2020 (the measure). The cascade and its rounding analysis: derived here.
    """
    check_samples(x, y)
    x_weights, y_weights = (
        w if w is None or hasattr(w, "dtype") else np.asarray(w) for w in (x_weights, y_weights)
    )
    check_weights(x, y, x_weights, y_weights)
    check_method(x, y, x_weights, y_weights, method)
    weighted = x_weights is not None or y_weights is not None or x.shape[0] != y.shape[0]
    weights = given_weights(x_weights, y_weights)
    options = Options(
        method,
        tolerance,
        max_iterations,
        sinkhorn_epsilon,
        sinkhorn_iterations,
        weighted,
        weights[2],
    )
    used = used_rows(x_weights), used_rows(y_weights)
    fixed = (jax.lax.stop_gradient(z) if isinstance(z, jax.core.Tracer) else z for z in (x, y))
    result = _em_distance(given(*fixed, used=used), *weights[:2], options=options)
    value = with_derivative(result.value, x, y, (x_weights, y_weights) if weighted else None)
    return result._replace(value=value)


def em_distance_from_costs(
    costs: Float[Array, "n n"],
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    method: str | Solver = "auto",
    tolerance: float | int = 1e-5,
    max_iterations: int = 16,
    sinkhorn_epsilon: float | int = 0.01,
    sinkhorn_iterations: int = 1000,
) -> EMDistance:
    """`em_distance` of equal, unweighted samples whose cost matrix has been computed.

    The points tell how far the costs may be from the true ones, and zeros from what underflows.
    They are not scaled here as they are in `em_distance`: where squares of differences overflow,
    nothing is certified, and where they underflow, the certificate is wide.

    Args:
        costs: `cost_matrix` of x and y, (n, n).
        x: Before, (n, d), float32 or float64.
        y: After, (n, d), the same dtype.
        method: As for `em_distance`, and so are the others.
        tolerance: Relative gap that counts as exact.
        max_iterations: Bound on the Bellman-Ford iterations.
        sinkhorn_epsilon: Regularisation, relative to the mean cost.
        sinkhorn_iterations: Bound on the Sinkhorn iterations.

    Returns:
        `EMDistance`; NaN in value, lower and upper, exact False, where a cost or their sum is not
        finite.

    Raises:
        ValueError: If shapes do not match, or as for `em_distance`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, y = jnp.array([[0.0], [10.0]]), jnp.array([[11.0], [2.0]])
        >>> float(em_distance_from_costs(cost_matrix(x, y), x, y).value)
        1.5
    """
    check_samples(x, y)
    check_method(x, y, None, None, method)
    if x.ndim != 2 or x.shape != y.shape or costs.shape != (x.shape[0], y.shape[0]):
        raise ValueError(
            f"`costs` has shape {costs.shape}, `x` {x.shape} and `y` {y.shape}; they must be "
            "(n, n), (n, d) and (n, d). For other samples call em_distance."
        )
    options = Options(
        method, tolerance, max_iterations, sinkhorn_epsilon, sinkhorn_iterations, False
    )
    return _from_costs(costs, x, y, options=options)


def _certified_costs(
    costs: jax.Array, x: jax.Array, y: jax.Array, *, options: Options
) -> EMDistance:
    ones = jnp.ones(len(costs), costs.dtype)
    masses, same = ones / len(costs), jnp.ones((), bool)
    unknown = jnp.full((), jnp.nan, costs.dtype)
    return lax.cond(
        jnp.all(jnp.isfinite(costs @ ones)),  # the fastest pass over them that shows NaN and inf
        lambda: cascade(Problem(costs, masses, masses, (ones, ones), same, x, y), options),
        lambda: EMDistance(unknown, unknown, unknown, jnp.zeros((), bool)),
    )


_from_costs = compiled(_certified_costs, static=("options",))


def _certified(
    samples: Given, x_weights: Weights | None, y_weights: Weights | None, *, options: Options
) -> EMDistance:
    x, y, *errors = as_matrices(samples)
    (n, d), m, dtype = x.shape, y.shape[0], x.dtype
    a, b = normalized(x_weights, n, x[:, 0]), normalized(y_weights, m, y[:, 0])

    # Masked points may hold anything; other defects poison the result, not the solvers.
    x, y = (jnp.where(p.used[:, None], z, 0) for z, p in ((x, a), (y, b)))
    valid = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y)) & a.valid & b.valid
    x, y = jnp.where(valid, x, 0), jnp.where(valid, y, 0)

    k = _rounding.scale_exponent(x, y, room(x, y))
    scaled = _rounding.times_power_of_two(x, k), _rounding.times_power_of_two(y, k)
    if d == 1 and x_weights is None and y_weights is None:
        result = sort_bounds(*scaled, x, y, options)
    else:
        raw_x = a.used.astype(dtype) if x_weights is None else x_weights.raw
        raw_y = b.used.astype(dtype) if y_weights is None else y_weights.raw
        same = same_weights(x_weights, y_weights, n, m, dtype)
        costs = cost_matrix(*scaled)
        result = cascade(Problem(costs, a.masses, b.masses, (raw_x, raw_y), same, x, y), options)

    def unscaled(value, floor):  # an upper bound must not underflow to 0
        small = jnp.finfo(dtype).tiny if floor else 0
        value = jnp.where(value > 0, jnp.maximum(_rounding.times_power_of_two(value, -k), small), 0)
        return jnp.where(valid, value, jnp.nan)

    lower = jnp.minimum(unscaled(result.lower, False), jnp.finfo(dtype).max)
    upper = unscaled(result.upper, True)
    for masses, error in ((a.masses, errors[0]), (b.masses, errors[1])):
        if error is not None:  # The rows given are this far from those measured.
            moved = _rounding.tree_sum(masses * jnp.where(masses > 0, error, 0))
            moved = _rounding.nudge(moved, moved, 2 * _rounding.tree_depth(max(n, m)) + 12)
            # A share of the smallest number would be taken for 0.
            some = jnp.any((masses > 0) & (error > 0))
            moved = jnp.where(some, jnp.maximum(moved, jnp.finfo(dtype).tiny), moved)
            lower = jnp.maximum(_rounding.nudge(lower - moved, lower + moved, -2), 0)
            upper = _rounding.nudge(upper + moved, upper + moved, 2)
    value = jnp.clip(unscaled(result.value, False), lower, upper)
    closed = (upper - lower <= options.tolerance * upper) & jnp.isfinite(upper)
    return EMDistance(value, lower, upper, closed & valid)


_em_distance = compiled(_certified, static=("options",))
