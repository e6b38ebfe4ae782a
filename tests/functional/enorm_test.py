"""Equi-normalization of a tree of parameters: same function, least energy, consistent buffers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tests.oracle import assert_close
from unitnorm_jax.functional import (
    EnormGroup,
    enorm_chain,
    enorm_energy,
    enorm_factors,
    enorm_rescale,
)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for width in (7, 6, 5):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(3)(x)


class ConvNet(nn.Module):
    """Pooling, batch normalization with and without bias, an image flattened before Dense."""

    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, epsilon=self.epsilon, momentum=0.5
        )
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(norm(name="norm")(nn.Conv(6, (3, 3), use_bias=False)(x)))
        x = nn.leaky_relu(norm(name="bare", use_bias=False)(nn.Conv(5, (1, 1))(x)))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(3)(x)


class Residual(nn.Module):
    """Two streams: the first read by a projection too, the second by a layer that feeds itself."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6, name="stem")(x)
        y = nn.relu(nn.Dense(5, name="a0")(nn.relu(x)))
        x = x + nn.Dense(6, name="a1")(y)
        y = nn.relu(nn.Dense(7, name="b0")(nn.relu(x)))
        x = nn.Dense(4, name="b1")(y) + nn.Dense(4, use_bias=False, name="projection")(x)
        x = x + nn.Dense(4, name="loop")(nn.relu(x))
        return nn.Dense(2, name="head")(nn.relu(x))


class Net(NamedTuple):
    model: nn.Module
    shape: tuple[int, ...]
    groups: tuple[EnormGroup, ...]
    depths: dict[str, int] | None = None


DENSE = tuple(f"Dense_{i}" for i in range(4))
NETS = {
    "mlp": Net(MLP(), (5, 4), enorm_chain(DENSE)),
    "conv": Net(
        ConvNet(),
        (5, 8, 8, 2),
        (
            EnormGroup(("Conv_0",), ("Conv_1",)),
            EnormGroup(("Conv_1",), ("Conv_2",), norms=("norm",)),
            EnormGroup(("Conv_2",), (), norms=("bare",), flattened=("Dense_0",)),
            EnormGroup(("Dense_0",), ("Dense_1",)),
        ),
    ),
    "residual": Net(
        Residual(),
        (5, 3),
        (
            EnormGroup(("stem", "a1"), ("a0", "b0", "projection")),
            EnormGroup(("a0",), ("a1",)),
            EnormGroup(("b0",), ("b1",)),
            EnormGroup(("b1", "projection", "loop"), ("loop", "head")),
        ),
        {"stem": 0, "a0": 1, "a1": 2, "b0": 3, "projection": 3, "b1": 4, "loop": 5, "head": 6},
    ),
}


@functools.cache
def variables(name: str, seed: int = 0) -> Any:
    """Every parameter and statistic off its initial value."""
    shapes = jax.eval_shape(NETS[name].model.init, jax.random.key(seed), inputs(name))
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key == "kernel":
            value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        else:
            value = rng.uniform(0.1, 0.5, leaf.shape)
        return np.float32(value * rng.uniform(0.2, 3, leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def inputs(name: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(9).normal(size=NETS[name].shape), jnp.float32)


@functools.cache
def cycle(name: str, **options: Any) -> Callable[..., Any]:
    """Cycles, jitted: variables and their number in, variables and energy out."""
    net = NETS[name]

    def one(_: int, variables: Any) -> Any:
        factors = enorm_factors(
            variables["params"],
            net.groups,
            batch_stats=variables.get("batch_stats"),
            depths=net.depths,
            **options,
        )
        return {kind: enorm_rescale(variables[kind], getattr(factors, kind)) for kind in variables}

    @jax.jit
    def run(variables: Any, times: int) -> tuple[Any, jax.Array]:
        variables = jax.lax.fori_loop(0, times, one, variables)
        energy = enorm_energy(variables["params"], net.groups, depths=net.depths, **options)
        return variables, energy

    return run


@functools.cache
def balancing(name: str) -> Callable[[Any], Any]:
    """The factors of one cycle, jitted."""
    return jax.jit(
        lambda variables: enorm_factors(
            variables["params"], NETS[name].groups, batch_stats=variables.get("batch_stats")
        )
    )


@functools.cache
def outputs(name: str, train: bool) -> Callable[[Any], jax.Array]:
    model, x = NETS[name].model, inputs(name)

    def run(variables: Any) -> jax.Array:
        y = model.apply(variables, x, train=train, mutable=["batch_stats"] if train else False)
        return y[0] if train else y

    return jax.jit(run)


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(float), tree)


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


PARAMS = {
    "a": {"kernel": jnp.ones((2, 3))},
    "norm": {"scale": jnp.ones(3)},
    "b": {"kernel": jnp.ones((3, 3))},
    "c": {"kernel": jnp.ones((12, 1))},
}
STATS = {"norm": {"mean": jnp.ones(3), "var": jnp.ones(3)}}
AB = EnormGroup(("a",), ("b",))


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ((AB,), {"bias": "no"}, r"`bias` \(='no'\) must be one of 'rescale', 'count', 'ignore'"),
        (
            (EnormGroup(("x/a",), ("b",)),),
            {},
            r"layer \(='x/a'\) has no `kernel` .* layers with a `kernel` are a, b, c",
        ),
        ((EnormGroup(("a",), ()),), {}, r"`outgoing` of group 0 must name at least one layer"),
        ((EnormGroup((), ("a",)),), {}, r"`incoming` of group 0 must name at least one layer"),
        (
            (AB, EnormGroup(("a",), ("a",))),
            {},
            r"layer \(='a'\) is in `incoming` of group 0 and of group 1, but must be in one",
        ),
        (
            (EnormGroup(("a",), ("c",)),),
            {},
            r"group 0 does not chain: 'a' writes 3 units, but 'c' reads 12\. A Dense after a flat",
        ),
        (
            (EnormGroup(("a",), (), flattened=("a",)),),
            {},
            r"'a' has a kernel of shape \(2, 3\), not \(positions \* 3, ...\)",
        ),
        ((EnormGroup(("a", "c"), ("b",)),), {}, r"'a' writes 3 units, but 'c' writes 1"),
        ((EnormGroup(("a",), ("norm",)),), {}, r"layer \(='norm'\) of group 0 reads units, so it"),
        (
            (AB._replace(norms=("norm",)),),
            {},
            r"norm \(='norm'\) of group 0 has no running `mean` in `batch_stats`",
        ),
        (
            (AB._replace(norms=("a",)),),
            {"batch_stats": {"a": STATS["norm"]}},
            r"norm \(='a'\) of group 0 has no `scale` in `params`",
        ),
        (
            (EnormGroup(("c",), ("a",), norms=("norm",)),),
            {"batch_stats": STATS},
            r"group 0 does not chain: 'c' writes 1 units, but 'a' reads 2",
        ),
        (
            (AB, EnormGroup(("b",), ("a",))),
            {"c": 1.1},
            r"group 1 does not chain: 'b' writes 3 units, but 'a' reads 2",
        ),
        (
            (EnormGroup(("a", "b"), ("b",)),),
            {"c": 1.1},
            r"`c` \(=1.1\) scales layers by their depth, .* Give `depths`",
        ),
        ((AB,), {"depths": {"a": 0}}, r"`depths` has no entry for layer \(='b'\)"),
    ],
)
def test_errors(groups, options, message):
    with pytest.raises(ValueError, match=message):
        enorm_factors(PARAMS, groups, **options)


def test_a_norm_of_another_width():
    params = {**PARAMS, "norm": {"scale": jnp.ones(4)}}
    with pytest.raises(ValueError, match=r"must have one value for each of the 3 units"):
        enorm_factors(params, (AB._replace(norms=("norm",)),), batch_stats=STATS)


def test_other_errors():
    with pytest.raises(ValueError, match=r"`norms` has 1 entries, but must have one .*: 2\."):
        enorm_chain(("a", "b", "c"), ("norm",))
    with pytest.raises(ValueError, match="`tree` must have the structure of `factors`"):
        enorm_rescale({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises(ValueError, match="`params` must be nested dictionaries of arrays"):
        enorm_factors({"a": [jnp.ones((2, 2))]}, ())
    with pytest.raises(ValueError, match=r"`p` \(=0\) must be positive"):
        enorm_energy(PARAMS, (AB,), p=0)
