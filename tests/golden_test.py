"""The layer against the authors' layer: every case, float64 and float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import layer
from tests.golden import cases, layer_cases
from tests.oracle import assert_close
from unitnorm_jax import linen
from unitnorm_jax.functional._numerics import reference

pytestmark = pytest.mark.rounding

CASES = layer_cases()
EPS32 = np.finfo(np.float32).eps
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def sensitivity(case, mean, var):
    """How far y moves when the running statistics change by the rounding of float32."""
    params = cases.params(case)
    opts = cases.options(case) | {"use_running_average": True}
    y, *moved = (
        reference.unitized_batch_norm(
            case.arrays["x"], mean * (1 + m), var * (1 + v), **params, **opts
        ).y
        for m, v in ((0, 0), (EPS32, 0), (0, EPS32))
    )
    return EPS32 + sum(np.abs(y - other).max() for other in moved) / np.abs(y).max()


def uncancelled(case):
    """The size of g_x's terms: with two values per channel their sum is far smaller."""
    _, var = cases.running(case, "after1")
    scale = case.arrays.get("gamma", 1.0) / np.sqrt(var + case.config["epsilon"])
    return np.max(np.abs(case.arrays["dy"] * scale))


@each_case
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_outputs_and_gradients(case, mode, dtype):
    infer = mode == "infer"
    y, _, grads = layer.value_and_grads(
        case.arrays["x"],
        *cases.running(case, "before"),
        cases.params(case),
        case.arrays["dy"],
        dtype=dtype,
        use_running_average=infer,
        **cases.options(case),
    )
    # All inputs are exact in float32, so float32 owes its accuracy at every mean.
    assert y.dtype == dtype
    assert_close(y, case.arrays[f"y_{mode}"], 1e-9 if dtype == "float64" else 1e-5)
    expected = cases.gradients(case, "ginfer_" if infer else "g_")
    assert grads.keys() == expected.keys()
    for name, value in expected.items():
        tol = 1e-6 if dtype == "float64" else 2e-5
        assert_close(grads[name], value, tol, name, size=uncancelled(case) * (name == "x"))


@each_case
def test_running_statistics(case, dtype):
    exact = dtype == "float64"
    opts = cases.options(case)
    params = {k: jnp.asarray(v, dtype) for k, v in cases.params(case).items()}

    mean = var = jnp.zeros_like(params["alpha"])
    for t, x in enumerate(cases.batches(case), start=1):
        _, (mean, var) = layer.forward(
            jnp.asarray(x, dtype), mean, var, params, use_running_average=False, **opts
        )
        debias = 1 - opts["momentum"] ** t  # theirs are zero-debiased
        for ours, theirs in zip((mean, var), cases.running(case, f"after{t}"), strict=True):
            # In float32 each update rounds once, against a total weight of 1 - m^t.
            tol = 1e-10 if exact else 8 * EPS32
            assert_close(np.asarray(ours, np.float64) / debias, theirs, tol)

    mean, var = (jnp.asarray(np.asarray(s, np.float64) / debias, dtype) for s in (mean, var))
    x = jnp.asarray(case.arrays["x"], dtype)
    y, _ = layer.forward(x, mean, var, params, use_running_average=True, **opts)
    tol = 1e-9 if exact else 8 * sensitivity(case, *cases.running(case, f"after{t}"))
    assert_close(y, case.arrays["y_infer_after"], tol)


@pytest.mark.parametrize(
    "name",
    [
        "8x8x8x4_normal_arand_d",
        "8x8x8x4_bigmean_arand_e5",
        "32x10_t3_arand_e5",
        "extra_imagesize100np",
        "extra_noscale",
        "extra_nocenter",
        "extra_rank5",
    ],
)
def test_linen_module(name, dtype):
    case = CASES[name]
    exact = dtype == "float64"
    module = linen.UnitizedBatchNorm(
        use_scale=case.config["scale"], use_bias=case.config["center"], **cases.options(case)
    )
    params = {k: jnp.asarray(v, dtype) for k, v in cases.params(case).items()}
    mean, var = (jnp.asarray(s, jnp.float32) for s in cases.running(case, "before"))
    variables = {"params": params, "batch_stats": {"mean": mean, "var": var}}
    x = jnp.asarray(case.arrays["x"], dtype)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, module.init(jax.random.key(0), x, use_running_average=False)
    )
    y = module.apply(variables, x, use_running_average=True)
    assert_close(y, case.arrays["y_infer"], 1e-9 if exact else 1e-5)
    y, updated = module.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    assert_close(y, case.arrays["y_train"], 1e-9 if exact else 1e-5)
    m = module.momentum
    for key, theirs in zip(("mean", "var"), cases.running(case, "after1"), strict=True):
        before = np.asarray(variables["batch_stats"][key], np.float64)
        after = updated["batch_stats"][key]
        assert after.dtype == jnp.float32
        assert_close(after, m * before + (1 - m) * theirs, 4 * EPS32)
