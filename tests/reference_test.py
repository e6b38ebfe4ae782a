"""The oracle itself against the authors' layer, so that it may judge ours."""

import numpy as np
import pytest

from tests import oracle
from tests.golden import cases, layer_cases
from unitnorm_jax.functional._numerics import reference

CASES = layer_cases()
TOL = 1e-11  # the vectors are stored with 36 bits of mantissa
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_all_cases_are_here():
    assert len(CASES) == 70


@each_case
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_outputs_and_gradients(case, mode):
    infer = mode == "infer"
    out, grads = oracle.value_and_grads(
        case.arrays["x"],
        *cases.running(case, "before"),
        cases.params(case),
        case.arrays["dy"],
        use_running_average=infer,
        **cases.options(case),
    )
    oracle.assert_close(out.y, case.arrays[f"y_{mode}"], TOL)
    expected = cases.gradients(case, "ginfer_" if infer else "g_")
    assert grads.keys() == expected.keys()
    for name, value in expected.items():
        oracle.assert_close(grads[name], value, 1e-10, name)


@each_case
def test_running_statistics(case):
    opts = cases.options(case) | cases.params(case)
    mean = var = np.zeros_like(case.arrays["alpha"])
    for t, x in enumerate(cases.batches(case), start=1):
        *_, mean, var = reference.unitized_batch_norm(
            x, mean, var, use_running_average=False, **opts
        )
        debias = 1 - opts["momentum"] ** t
        for ours, theirs in zip((mean, var), cases.running(case, f"after{t}"), strict=True):
            oracle.assert_close(ours / debias, theirs, TOL)
    y = reference.unitized_batch_norm(
        case.arrays["x"], mean / debias, var / debias, use_running_average=True, **opts
    ).y
    oracle.assert_close(y, case.arrays["y_infer_after"], TOL)
