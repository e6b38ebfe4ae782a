"""The Earth Mover distance between two samples, with a certificate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, Shaped

from unitnorm_jax.ics import rounding
from unitnorm_jax.ics.assignment import Solver
from unitnorm_jax.ics.cascade import EMDistance, Options, Problem, cascade, sort_bounds
from unitnorm_jax.ics.cost import cost_matrix
from unitnorm_jax.ics.samples import as_matrices, check_method, check_samples, check_weights


def em_distance(
    x: Num[Array | np.ndarray, "n ..."],
    y: Num[Array | np.ndarray, "m ..."],
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

    ``W1 = min over couplings P of sum_ij P_ij |x_i - y_j|
         = max over f, g with f_i + g_j <= |x_i - y_j| of sum_i a_i f_i + sum_j b_j g_j``

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
    however small the drift. Both hold for W1 in exact arithmetic, given IEEE arithmetic without
    reassociation, XLA's default (tested on CPU; not yet run on a GPU or TPU).
    Numbers below the smallest normal one count as 0, as in the hardware.

    Under jit, shapes are static. Under `jax.vmap` both branches of step 4 run for every element
    and the loops run in lockstep: use `jax.lax.map`. Memory: a few (n, m) matrices and a copy
    of x and y. Not differentiable: a measurement.

    Args:
      x: Before, (n, ...), n >= 1; all axes but the first are one vector. Integers, bfloat16 and
        float16 are computed in float32 (integers exact up to 2^24; 2^53 under x64).
      y: After, (m, ...), the same trailing shape.
      x_weights: Nonnegative weights (n,), default equal; normalised to sum 1. Points of weight
        0 are ignored, whatever they hold (a mask, NaN included).
      y_weights: Likewise (m,).
      method: "auto": the cascade, with the host solvers. "pairing": steps 1-3 only, no solver.
        "scipy": always solve on the host. "sinkhorn": always Sinkhorn, no host callback. A
        callable (n, n) costs -> column of each row, or (rows, columns): in the place of scipy
        in the cascade, for accelerators, for example
        ``optax.assignment.hungarian_algorithm``; only for equal, unweighted samples. What it
        returns is checked and certified, so a poor solver gives wide bounds, not wrong ones.
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
      ValueError: If shapes do not match, samples are empty or complex, or `method` does not
        exist or cannot treat the samples.

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
    check_weights(x, y, x_weights, y_weights)
    check_method(x, y, x_weights, y_weights, method)
    weighted = x_weights is not None or y_weights is not None or x.shape[0] != y.shape[0]
    options = Options(
        method, tolerance, max_iterations, sinkhorn_epsilon, sinkhorn_iterations, weighted
    )
    return _em_distance(x, y, x_weights, y_weights, options)


@functools.partial(jax.jit, static_argnames="options")
def _em_distance(x, y, x_weights, y_weights, options: Options) -> EMDistance:
    x, y = as_matrices(x, y)
    (n, d), m, dtype = x.shape, y.shape[0], x.dtype
    w = jnp.ones((n,), dtype) if x_weights is None else x_weights.astype(dtype)
    v = jnp.ones((m,), dtype) if y_weights is None else y_weights.astype(dtype)

    # Masked points may hold anything; other defects poison the result, not the solvers.
    x = jnp.where((w > 0)[:, None], x, 0)
    y = jnp.where((v > 0)[:, None], y, 0)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    sums = rounding.tree_sum(w), rounding.tree_sum(v)
    proper = jnp.all(w >= 0) & jnp.all(v >= 0) & (sums[0] > 0) & (sums[1] > 0)
    valid = finite & proper & jnp.isfinite(sums[0]) & jnp.isfinite(sums[1])
    x, y = jnp.where(valid, x, 0), jnp.where(valid, y, 0)
    w, v = jnp.where(valid, w, 1), jnp.where(valid, v, 1)

    k = rounding.scale_exponent(x, y, d)
    scaled = rounding.times_power_of_two(x, k), rounding.times_power_of_two(y, k)
    if d == 1 and x_weights is None and y_weights is None:
        result = sort_bounds(*scaled, x, y, options)
    else:
        same = jnp.all(w == v) if n == m else jnp.zeros((), bool)
        a, b = w / rounding.tree_sum(w), v / rounding.tree_sum(v)
        result = cascade(Problem(cost_matrix(*scaled), a, b, (w, v), same, x, y), options)

    def unscaled(value, floor):  # an upper bound must not underflow to 0
        small = jnp.finfo(dtype).tiny if floor else 0
        value = jnp.where(value > 0, jnp.maximum(rounding.times_power_of_two(value, -k), small), 0)
        return jnp.where(valid, value, jnp.nan)

    lower = jnp.minimum(unscaled(result.lower, False), jnp.finfo(dtype).max)
    upper = unscaled(result.upper, True)
    value = jnp.clip(unscaled(result.value, False), lower, upper)
    return EMDistance(value, lower, upper, result.exact & valid)
