"""Layers of any dimension in one program: what `measure` says of each, and what is true."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics
from unitnorm_jax.ics.probe import _tiles
from unitnorm_jax.ics.probe._measure_all import measure_all

CASES = {  # kind, relation, d, scale, offset
    "drift": ("gaussian", "drift", 5, 1.0, 0.0),
    "several tiles": ("gaussian", "drift", 2100, 1.0, 0.0),
    "independent": ("gaussian", "independent", 40, 1.0, 1.0),
    "same": ("gaussian", "same", 7, 1.0, 0.0),
    "tiny": ("gaussian", "tiny", 1500, 1.0, 1e4),
    "large": ("heavy", "shifted", 33, 1e25, 0.0),
    "small": ("discrete", "drift", 3, 1e-30, 0.0),
    "constant": ("degenerate", "same", 64, 0.0, 1.0),
    "one number": ("gaussian", "independent", 1, 1.0, 0.0),
}
N = 12
COLUMNS = 1024  # of a tile
OF_SOME = ("projection", "coordinates", "moment_2", "moment_3", "moment_4")  # of its columns


@pytest.fixture(scope="module")
def samples(pair):
    """Before and after, of each case; the last but one is not finite."""
    found = {
        name: pair(kind, relation, N, d, i, scale, offset)
        for i, (name, (kind, relation, d, scale, offset)) in enumerate(CASES.items())
    }
    for d, offset in ((40, 0.0), (1500, 100.0)):  # Points near others than their partners.
        x, y = pair("gaussian", "drift", N, d, 7)
        x[1], x[3] = x[0] + 1e-2 * (x[1] - x[0]), x[2]
        y[:] = x + 1e-2 * (y - x)
        found[f"twins {d}"] = x + np.float32(offset), y + np.float32(offset)
        found[f"swapped {d}"] = x, y[[1, 0, *range(2, N)]]
    x, y = pair("gaussian", "drift", N, 1100, 0)
    y[3, 1050] = np.nan
    found["nan"] = x, y
    found["bfloat16"] = tuple(
        jnp.asarray(z, jnp.bfloat16) for z in pair("gaussian", "drift", N, 9, 0)
    )
    x, y = pair("discrete", "independent", N, 9, 1)  # as many as of half precision, and more digits
    found["short integers"] = tuple((1000 * z + 7).astype(np.int16) for z in (x, y))
    found["integers"] = tuple(z.astype(np.int32) for z in pair("discrete", "independent", N, 9, 0))
    return found


@pytest.fixture(scope="module", params=["auto", "pairing", "large"])
def measured(samples, request):
    """All layers together; or those of several tiles as if they were too large to be copied."""
    method = "auto" if request.param == "large" else request.param
    blocks = [tuple(jnp.asarray(z)[None] for z in pair) for pair in samples.values()]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "large":
            patch.setattr(_tiles, "_LARGE", 0)
        run = jax.jit(lambda blocks: measure_all(blocks, method, 1e-5))
        found = jax.device_get(run(blocks)).measure()
    return method, [jax.tree.map(lambda z, i=i: z[i], found) for i in range(len(blocks))]


def test_bounds_hold_and_are_those_of_measure(samples, measured, exact):
    method, found = measured
    for (name, (x, y)), m in zip(samples.items(), found, strict=True):
        assert (bool(m.finite_before), bool(m.finite_after)) == (True, name != "nan")
        if name == "nan":
            numbers = [*m.distance[:3], *m.relative[:3], m.spread, *m.upper.values()]
            assert np.isnan([*numbers, *m.lower.values()]).all()
            assert not m.distance.exact
            assert not m.pairing_optimal
            continue
        x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
        truth = exact(x, y)
        slack = 1e-14 * truth
        lower = {**m.lower, "certified": m.distance.lower}
        upper = {**m.upper, "certified": m.distance.upper}
        for bound_name, bound in lower.items():
            assert bound <= truth + slack, (name, bound_name)
        for bound_name, bound in upper.items():
            assert bound >= truth - slack, (name, bound_name)
        reference = jax.device_get(ics.measure(*samples[name], method=method))
        assert bool(m.distance.exact) == bool(reference.distance.exact), name
        assert bool(m.pairing_optimal) == bool(reference.pairing_optimal), name
        assert bool(m.relative.exact) == bool(reference.relative.exact), name
        # The closed forms are those of `measure`, up to their rounding.
        close = {"rtol": 2e-5, "atol": 1e-4 * truth if truth else 1e-30}
        for mine, other in ((m.lower, reference.lower), (m.upper, reference.upper)):
            assert mine.keys() == other.keys()
            for key, bound in mine.items():
                if x.shape[1] > COLUMNS and key in OF_SOME:
                    assert 0.3 * other[key] < bound < 1.001 * other[key], (name, key)
                    continue
                np.testing.assert_allclose(bound, other[key], **close, err_msg=f"{name} {key}")
        np.testing.assert_allclose(m.spread, reference.spread, rtol=1e-5)
        if np.isfinite(reference.relative.value):
            np.testing.assert_allclose(m.relative.value, reference.relative.value, rtol=1e-4)
        else:
            np.testing.assert_equal(m.relative.value, reference.relative.value)


def test_certificates_are_tight(measured):
    method, found = measured
    for name, m in zip(CASES, found, strict=False):
        if name in ("drift", "several tiles", "large") or method == "auto":
            assert m.distance.exact, name
            assert m.distance.upper - m.distance.lower <= 1e-5 * m.distance.upper


def test_small_numbers_beside_double_precision(exact):
    x = np.random.default_rng(5).normal(size=(8, 17)).astype(np.float32)
    small = x * np.float32(2e-38), x * np.float32(2.5e-38)  # some of them subnormal
    with jax.enable_x64(True):
        blocks = [small, (x.astype(np.float64), x.astype(np.float64) + 1)]
        blocks = [tuple(jnp.asarray(z)[None] for z in pair) for pair in blocks]
        found = jax.device_get(measure_all(blocks, "auto", 1e-5)).measure().distance
    truth = exact(*(z.astype(np.float64) for z in small))
    assert found.lower[0] <= truth <= found.upper[0]
    assert found.exact.all()
    np.testing.assert_allclose(found.value, [truth, np.sqrt(17)], rtol=1e-5)


@pytest.mark.parametrize("method", ["auto", "scipy"])
def test_costs_of_all_pairs_are_in_no_concatenation(method):
    """XLA's loop over one reads addresses that may not exist: now and then it took 400 times."""
    n = 64
    block = jax.ShapeDtypeStruct((1, n, 3 * COLUMNS), jnp.float32)
    run = jax.jit(lambda x, y: measure_all([(x, y)], method, 1e-5))
    text = run.lower(block, block).compile().as_text()
    flat = [int(size) for size in re.findall(r"f32\[(\d+)\]\S* concatenate\(", text)]
    assert flat
    assert max(flat) < n * n


def test_large_layers_are_not_copied():
    """4,096 samples of 65,536 numbers, 1 GiB a side: less than half of one beside them."""
    block = jax.ShapeDtypeStruct((1, 4096, 65536), jnp.float32)
    run = jax.jit(lambda x, y: measure_all([(x, y)], "auto", 1e-5))
    memory = run.lower(block, block).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**29


def test_layers_of_a_large_block_are_told_apart(monkeypatch, pair):
    """A stack of two layers, and integers: as when each is copied."""
    x, y = np.stack([pair("gaussian", "drift", N, 1500, i) for i in (0, 1)], axis=1)
    x[1], y[1] = 100 * x[1], 100 * y[1]
    integers = [np.round(50 * z).astype(np.int16) for z in (x, y)]
    for block in ((x, y), integers):
        found = []
        for least in (_tiles._LARGE, 0):
            monkeypatch.setattr(_tiles, "_LARGE", least)
            run = jax.jit(lambda x, y: measure_all([(x, y)], "auto", 1e-5))
            found.append(jax.device_get(run(*block)).measure())
        assert found[1].distance.exact.all()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *found)
