"""Equi-normalization of a tree of parameters: same function, least energy, consistent buffers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tests.contrib.enorm.networks import NETS, balancing, cycle, double, outputs, variables
from tests.oracle import assert_close
from unitnorm_jax.contrib.enorm import EnormGroup, enorm_chain, enorm_factors, enorm_rescale

CASES = [
    ("mlp", {"p": 1, "bias": "count"}),
    ("conv", {}),
    ("residual", {}),
    ("residual", {"p": 3, "c": 1.2}),
]
each_case = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


@each_case
def test_the_function_stays_and_the_energy_falls(name, options, x64):
    before = double(variables(name))
    after, energies = before, []
    for times in (0, *[1] * 12):
        after, energy = cycle(name, **options)(after, times)
        energies.append(float(energy))
    assert energies[-1] < 0.97 * energies[0]
    assert np.all(np.diff(energies) <= 1e-13 * energies[0])
    assert all(leaf.dtype == float for leaf in jax.tree.leaves(after))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-2, before, after)
    assert sum(jax.tree.leaves(moved)) > len(NETS[name].groups)
    for train in (False, True) if name == "conv" else (False,):
        # epsilon (1e-12) of the norms is all that does not scale.
        tol = 1e-10 if name == "conv" else 1e-12
        assert_close(outputs(name, train)(after), outputs(name, train)(before), tol)


def test_what_the_epsilon_of_a_norm_costs(x64):
    """Relative epsilon / (2 var) |1 - 1 / d^2| of its normalized output, as documented."""
    params = {
        "a": {"kernel": jnp.array([[1.0]])},
        "norm": {"scale": jnp.ones(1), "bias": jnp.zeros(1)},
        "b": {"kernel": jnp.array([[9.0]])},
    }
    stats = {"norm": {"mean": jnp.zeros(1), "var": jnp.full(1, 0.5)}}
    factors = enorm_factors(params, enorm_chain(("a", "b"), ("norm",)), batch_stats=stats)
    d = 3.0
    assert_close(factors.params["norm"]["scale"], [d], 1e-12)
    assert_close(factors.batch_stats["norm"]["var"], [d**2], 1e-12)
    epsilon, var = 1e-4, 0.5
    before, after = 1 / np.sqrt(var + epsilon), d / np.sqrt(d**2 * var + epsilon)
    predicted = epsilon / (2 * var) * (1 - 1 / d**2)
    assert after / before - 1 == pytest.approx(predicted, rel=1e-3)


def log_energy(name, params, p, c, count_bias):
    """Energy of a network as a function of the logarithms of all units' scales, in numpy."""
    groups, depths = NETS[name].groups, NETS[name].depths
    layers = {layer for g in groups for layer in (*g.incoming, *g.outgoing, *g.flattened)}
    width = [params[g.incoming[0]]["kernel"].shape[-1] for g in groups]
    starts = np.concatenate([[0], np.cumsum(width)])
    depth = depths or {layer: i for i, layer in enumerate(sorted(layers))}
    terms = []
    for layer in layers:
        kernel = np.abs(np.asarray(params[layer]["kernel"], np.float64)) ** p
        kernel = kernel.reshape(-1, *kernel.shape[-2:]).sum(0) * c ** (-p * depth[layer])
        out = [i for i, g in enumerate(groups) if layer in g.incoming]
        into = [i for i, g in enumerate(groups) if layer in (*g.outgoing, *g.flattened)]
        bias = None
        if count_bias and out and "bias" in params[layer]:
            bias = np.abs(np.asarray(params[layer]["bias"], np.float64)) ** p
            bias = bias * c ** (-p * depth[layer])
        terms.append((kernel, bias, out, into))

    def units(logs, found, size):
        if not found:
            return np.zeros(size)
        part = logs[starts[found[0]] : starts[found[0] + 1]]
        return np.tile(part, size // len(part))

    def energy(logs):
        total = 0.0
        for kernel, bias, out, into in terms:
            d = np.exp(p * units(logs, out, kernel.shape[1]))
            e = np.exp(-p * units(logs, into, kernel.shape[0]))
            total += e @ kernel @ d + (0 if bias is None else bias @ d)
        return total

    return energy, starts[-1]


@each_case
def test_the_limit_is_the_least_energy(name, options, x64):
    """Against a general-purpose minimizer over every scaling that keeps the function."""
    p, c = options.get("p", 2), options.get("c", 1.0)
    count = options.get("bias") == "count"
    start = double(variables(name))
    energy, size = log_energy(name, start["params"], p, c, count)
    before = energy(np.zeros(size))
    best = minimize(energy, np.zeros(size), method="BFGS", options={"gtol": 1e-9 * before})
    run = cycle(name, **options)
    assert float(run(start, 0)[1]) == pytest.approx(before)
    assert float(run(start, 400)[1]) == pytest.approx(best.fun, rel=1e-7)


def test_every_start_leads_to_the_same_network(x64):
    name = "residual"
    start = double(variables(name))
    # The factors of any other network are a scaling that keeps the function.
    factors = balancing(name)({**start, "params": double(variables(name, seed=3))["params"]})
    other = {kind: enorm_rescale(start[kind], getattr(factors, kind), 8) for kind in start}
    assert_close(outputs(name, False)(other), outputs(name, False)(start), 1e-9)
    away = jax.tree.map(lambda a, b: np.abs(np.log(np.abs(a / b))).max(), other, start)
    assert max(jax.tree.leaves(away)) > 1
    ends = [cycle(name)(state, 400)[0] for state in (other, start)]
    jax.tree.map(functools.partial(assert_close, tol=1e-9), *ends)


def test_gradients_scale_inversely(x64):
    """So momentum by the power -1 is that of the new network."""
    name = "residual"
    before = double(variables(name))
    factors = balancing(name)(before)
    after = {kind: enorm_rescale(before[kind], getattr(factors, kind)) for kind in before}

    @jax.jit
    @jax.grad
    def gradient(params, rest):
        return jnp.sum(jnp.sin(outputs(name, False)({**rest, "params": params})))

    close = functools.partial(assert_close, tol=1e-8)
    grads = [gradient(state["params"], state) for state in (before, after)]
    jax.tree.map(close, grads[1], enorm_rescale(grads[0], factors.params, -1))


def test_ignoring_biases_changes_the_function(x64):
    """The published code's variant: kernels as if there were no biases and no norms."""
    name = "residual"
    before = double(variables(name))
    after, _ = cycle(name, bias="ignore")(before, 1)
    plain, _ = cycle(name)(before, 1)
    for layer, leaves in after["params"].items():
        for kind, leaf in leaves.items():
            same = plain["params"] if kind == "kernel" else before["params"]
            np.testing.assert_array_equal(leaf, same[layer][kind])
    drift = np.abs(outputs(name, False)(after) - outputs(name, False)(before)).max()
    assert drift > 1e-2


def test_a_normalization_that_writes_units():
    """Group normalization: its scale is the weight, and what is before it stays."""
    params = {
        "before": {"kernel": jnp.ones((2, 3))},
        "norm": {"scale": jnp.array([1.0, 4.0, -9.0]), "bias": jnp.ones(3)},
        "after": {"kernel": jnp.ones((3, 1))},
    }
    factors = enorm_factors(params, (EnormGroup(("norm",), ("after",)),)).params
    balanced = enorm_rescale(params, factors)
    np.testing.assert_allclose(balanced["norm"]["scale"], [1, 2, -3], rtol=1e-6)
    np.testing.assert_allclose(balanced["norm"]["bias"], [1, 1 / 2, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(balanced["after"]["kernel"][:, 0], [1, 2, 3], rtol=1e-6)
    np.testing.assert_array_equal(balanced["before"]["kernel"], params["before"]["kernel"])


def test_bfloat16():
    run, state = cycle("residual"), variables("residual")
    one = run(state, 1)
    half, energy = run(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), state), 1)
    assert energy.dtype == jnp.float32
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half))
    jax.tree.map(lambda a, b: assert_close(a, b, 0.03), half, one[0])


def test_a_unit_that_is_not_a_number_shows():
    """Its scale was 1, as that of a unit without weights."""
    kernels = jnp.ones((2, 3)).at[0, 1].set(jnp.nan), jnp.ones((3, 2))
    params = {name: {"kernel": k} for name, k in zip("ab", kernels, strict=True)}
    factors = enorm_factors(params, enorm_chain(("a", "b"))).params
    assert np.isnan(factors["b"]["kernel"][1]).all()
    assert np.isfinite(factors["b"]["kernel"][np.array([0, 2])]).all()
