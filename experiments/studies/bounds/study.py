"""The measurements: plain functions from numbers to rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from unitnorm_jax import ics
from unitnorm_jax.functional import BatchStats, unitized_batch_norm

EPSILON = 1e-10


class Row(NamedTuple):
    """One measurement: distance between two outputs, its certificate, and the bound."""

    study: str
    """What varies: "dimension", "noise" or "alpha"."""
    at: float
    """Its value."""
    alpha: float
    """0 is batch normalization, 1 fully unitized."""
    dimension: int
    noise: float
    repeat: int
    distance: float
    lower: float
    upper: float
    exact: bool
    relative: float
    """Distance in units of the spread of the output before."""
    bound: float
    """U1 at alpha = 0; the unitized bound otherwise."""
    bound_name: str


def dimension_rows(dimensions: Sequence[int], alphas: Sequence[float]) -> Iterator[Row]:
    """Yield rows of X = s (1,..,1), Y = s (1,..,1,-1,..,-1), s = +-1: equal means, equal variances.

    Args:
      dimensions: Even numbers.
      alphas: Values of alpha.
    """
    for d in dimensions:
        signs = np.array([[1.0], [-1.0]], np.float32)
        before = signs * np.ones((1, d), np.float32)
        after = signs * np.where(np.arange(d) < d // 2, 1, -1).astype(np.float32)[None]
        for alpha in alphas:
            outputs = [_layer(x, None, alpha) for x in (before, after)]
            yield _row("dimension", d, alpha, 0.0, 0, *outputs, norms=(None, None))


def noise_rows(
    noises: Sequence[float], alphas: Sequence[float], d: int, n: int, repeats: int, seed: int
) -> Iterator[Row]:
    """Yield rows of the same n samples, normalized with two draws of noisy statistics.

    Means are off by ``noise`` standard deviations times a normal number, variances by a factor
    exp(noise times a normal number). For mini-batches of B samples noise is about 1/sqrt(B).

    Args:
      noises: Levels of noise.
      alphas: Values of alpha.
      d: Dimension.
      n: Samples.
      repeats: Draws per level.
      seed: Of everything.
    """
    for noise in noises:
        yield from _noisy("noise", noise, alphas, d, n, repeats, seed)


def alpha_rows(
    alphas: Sequence[float], noise: float, d: int, n: int, repeats: int, seed: int
) -> Iterator[Row]:
    """Return the same as `noise_rows` at one level of noise, against alpha."""
    yield from _noisy("alpha", noise, alphas, d, n, repeats, seed)


def _noisy(study, noise, alphas, d, n, repeats, seed) -> Iterator[Row]:
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])  # the same draws at every level
        x = rng.normal(size=(n, d)).astype(np.float32)
        x = (x - x.mean(0)) / x.std(0)
        stats = []
        for _ in range(2):
            mean, log_var = noise * rng.normal(size=(2, d))
            stats.append(
                BatchStats(jnp.asarray(mean, x.dtype), jnp.asarray(np.exp(log_var), x.dtype))
            )
        norms = [float(np.linalg.norm(_layer(x, s, 0.0), axis=1).mean()) for s in stats]
        for alpha in alphas:
            outputs = [_layer(x, s, alpha) for s in stats]
            at = noise if study == "noise" else alpha
            yield _row(study, at, alpha, noise, repeat, *outputs, norms=norms)


def _layer(x: np.ndarray, stats: BatchStats | None, alpha: float) -> np.ndarray:
    d = x.shape[1]
    own = stats is None
    if stats is None:
        stats = BatchStats(jnp.zeros(d), jnp.ones(d))
    y, _ = unitized_batch_norm(
        jnp.asarray(x),
        stats,
        jnp.full(d, alpha),
        jnp.ones(d),
        jnp.zeros(d),
        use_running_average=not own,
        epsilon=EPSILON,
        unit="sample",
    )
    return np.asarray(y)


def _row(study, at, alpha, noise, repeat, before, after, *, norms) -> Row:
    d = before.shape[1]
    distance = ics.em_distance(before, after)
    relative = ics.relative(distance, before)
    if alpha == 0:
        name, bound = "U1, moments", ics.moment_upper_bound(before, after)
    else:
        name = "unitized"
        bound = ics.unitized_upper_bound(
            alpha, channels=d, unit="sample", norm_before=norms[0], norm_after=norms[1]
        )
    value, lower, upper = (float(v) for v in distance[:3])
    if not value <= float(bound) * (1 + 1e-5):
        raise AssertionError(f"bound {bound} below the distance {value}: {study} at {at}")
    return Row(
        study,
        float(at),
        float(alpha),
        d,
        float(noise),
        repeat,
        value,
        lower,
        upper,
        bool(distance.exact),
        float(relative.value),
        float(bound),
        name,
    )


def median(rows: Sequence[Row], field: str, **where: object) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and the median over repeats of a field there.

    Args:
      rows: Measurements.
      field: Name of the field.
      **where: Fields that must have the given value.
    """
    chosen = [r for r in rows if all(getattr(r, k) == v for k, v in where.items())]
    at = sorted({r.at for r in chosen})
    values = [np.median([getattr(r, field) for r in chosen if r.at == a]) for a in at]
    return np.array(at), np.array(values)
