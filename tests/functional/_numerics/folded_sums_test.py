"""Sums by slabs, the layer's on a CPU: chosen when they pay, and the same sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.functional.unitized_batch_norm_test import assert_matches_reference, problem
from unitnorm_jax import functional
from unitnorm_jax.functional._numerics import folded_sums
from unitnorm_jax.functional._numerics.folded_sums import Fold, choose_fold

pytestmark = pytest.mark.rounding

LARGE = {
    "images": ((32, 16, 8, 16), -1, 0, None),
    "channels first": ((16, 16, 14, 19), 1, 0, None),
    "second axis": ((32, 11, 14, 16), -1, 0, None),
    "sequences": ((64, 64, 16), -1, 0, None),
    "mask": ((32, 16, 8, 16), -1, 0, (32, 16, 8, 1)),
    "large mean": ((32, 16, 8, 16), -1, 1e4, None),
    "dense": ((210, 320), -1, 0, None),
    "dense, large mean": ((210, 320), -1, 1e4, None),
}


@pytest.mark.parametrize(
    ("shape", "axes", "fold"),
    [
        ((128, 32, 32, 16), (1, 2), Fold(1, 8)),
        ((32, 56, 56, 64), (1, 2), Fold(1, 8)),
        ((64, 14, 14, 256), (1, 2), Fold(1, 7)),
        ((64, 11, 12, 256), (1, 2), Fold(2, 6)),
        ((64, 11, 11, 256), (1, 2), None),
        ((2, 4, 4, 8), (1, 2), None),
        ((1024, 512), (0,), Fold(0, 8)),
        ((1024, 512), (1,), Fold(1, 8)),
        ((4096, 64), (1,), Fold(1, 4)),
        ((4096, 32), (1,), None),
    ],
)
def test_choice(shape, axes, fold):
    """The first axis with 3 to 8 slabs, as many as there are; none of a small array or of 15."""
    assert choose_fold(shape, axes, jnp.float32) == fold
    assert choose_fold(shape, axes, jnp.float16) is None


@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_large_inputs_match_the_float64_reference(case):
    shape, axis, offset, mask = case
    p = problem(shape, axis, offset, mask=mask)
    assert_matches_reference(p, 1e-5, 1e-5, axis=axis, use_running_average=False)


@pytest.mark.parametrize(
    ("shape", "use_fast_variance"),
    [((32, 16, 8, 16), True), ((32, 16, 8, 16), False), ((210, 320), True)],
)
def test_large_inputs_in_half_precision(shape, use_fast_variance):
    """The converted slabs are summed in float32: what is lost is what the input had lost."""
    p = problem(shape, offset=0.5)
    p |= {k: np.asarray(jnp.bfloat16(p[k]), np.float32) for k in ("x", "dy")}
    assert_matches_reference(
        p,
        1e-2,
        1e-2,
        dtype="bfloat16",
        use_running_average=False,
        use_fast_variance=use_fast_variance,
    )


@pytest.mark.parametrize("shape", [(2, 4, 3, 2), pytest.param((4, 6), marks=pytest.mark.slow)])
def test_derivatives_transformations_and_program(shape, monkeypatch, x64):
    """Forward and reverse mode, second order, ``vmap``; slabs are in the program."""
    monkeypatch.setattr(folded_sums, "_LEAST_SIZE", 0)
    monkeypatch.setattr(folded_sums, "_LEAST_WIDTH", 1)
    p = problem(shape)
    stats = functional.BatchStats(*(jnp.asarray(p[k], float) for k in ("mean", "var")))
    params = {k: jnp.asarray(v, float) for k, v in p["params"].items()}

    def run(x, params, axis_name=None):
        return functional.unitized_batch_norm(
            x, stats, **params, use_running_average=False, epsilon=1e-2, axis_name=axis_name
        )[0]

    x, dy = (jnp.asarray(p[k], float) for k in ("x", "dy"))
    check_grads(jax.jit(run), (x, params), order=1, modes=["fwd"], atol=1e-6, rtol=1e-6)
    check_grads(jax.jit(run), (x, params), order=2, modes=["rev"], atol=1e-4, rtol=1e-4)

    def gradient(x):
        return jax.vjp(run, x, params)[1](dy)

    assert "complex" in jax.jit(gradient).lower(x).as_text()
    xs = jnp.stack([x, x + 1, 2 * x])
    one_by_one = jax.tree.map(lambda *a: jnp.stack(a), *map(gradient, xs))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        jax.vmap(gradient)(xs),
        one_by_one,
    )
