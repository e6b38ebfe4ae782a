"""The published sweep against the published code, run in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_cases
from tests.oracle import assert_close
from unitnorm_jax.contrib.enorm import enorm_sweep

CASES = load_cases("enorm")
SWEEPS = [
    (name, c, p)
    for name, case in CASES.items()
    for c, p in case.config.get("combos", ())
    if (c, p) != (1.0, 1) or case.config["model_type"] == "linear"
]


def stack(case, kind, suffix="_before"):
    layers = range(sum(f"kernel{k}{suffix}" in case.arrays for k in range(9)))
    return [jnp.asarray(case.arrays[f"{kind}{k}{suffix}"]) for k in layers]


@functools.partial(jax.jit, static_argnames=("c", "p"))
def sweep(kernels, momenta, c, p):
    return enorm_sweep(kernels, c=c, p=p, momenta=momenta)


@pytest.mark.parametrize(("name", "c", "p"), SWEEPS)
def test_published_cycles(name, c, p, x64):
    case = CASES[name]
    conv = case.config["model_type"] == "conv"
    kernels = stack(case, "kernel")
    with_momentum = conv and case.config["momentum"] > 0  # their dense path leaves momenta alone
    momenta = stack(case, "momentum") if with_momentum else None
    done = 0
    for cycles in (1, 2, 50):
        while done < cycles:
            out = sweep(kernels, momenta, c, 2 if conv else p)  # their conv path ignores p
            kernels, momenta = out if with_momentum else (out, None)
            done += 1
        when = f"c{c:g}_p{p}_s{cycles}_"
        for k, kernel in enumerate(kernels):
            assert_close(kernel, case.arrays[f"{when}kernel{k}"], 1e-9)
            if with_momentum:
                assert_close(momenta[k], case.arrays[f"{when}momentum{k}"], 1e-9)


def test_every_published_case_is_run():
    swept = {name for name, _, _ in SWEEPS}
    assert swept | {"traj_mlp4"} == set(CASES)
    assert {name for name in swept if CASES[name].config["momentum"]} == {
        "mlp4_momentum",
        "conv3_momentum",
    }


@pytest.mark.slow
def test_between_published_updates(x64):
    """SGD with momentum and weight decay as theirs; their dense path leaves the momenta alone."""
    case = CASES["traj_mlp4"]
    config, arrays = case.config, case.arrays
    kernels, momenta = stack(case, "kernel", "_t0"), None

    @jax.jit
    @jax.value_and_grad
    def loss_and_grads(kernels, x, target):
        for kernel in kernels[:-1]:
            x = jax.nn.relu(x @ kernel)
        return 0.5 * jnp.mean(jnp.square(x @ kernels[-1] - target))

    for t in range(1, config["steps"] + 1):
        value, grads = loss_and_grads(kernels, arrays[f"x_t{t}"], arrays[f"target_t{t}"])
        assert_close(value[None], arrays[f"loss_t{t}"], 1e-9)
        grads = [g + config["weight_decay"] * w for g, w in zip(grads, kernels, strict=True)]
        if momenta is not None:
            grads = [config["momentum"] * m + g for m, g in zip(momenta, grads, strict=True)]
        momenta = grads
        kernels = [w - config["lr"] * m for w, m in zip(kernels, momenta, strict=True)]
        kernels = enorm_sweep(kernels, c=config["c"], p=config["p"])
        for k in range(len(kernels)):
            assert_close(kernels[k], arrays[f"kernel{k}_t{t}"], 1e-9)
            assert_close(momenta[k], arrays[f"momentum{k}_t{t}"], 1e-9)


def restated(kernels, c, p):
    """The published loop in numpy: one pair after the other, with the norms before the cycle."""
    before = [np.asarray(w, np.float64) for w in kernels]
    after = [w.copy() for w in before]
    for a, b in itertools.pairwise(range(len(before) - 1)):
        for i in range(before[a].shape[-1]):
            out = (np.abs(before[b][..., i, :]) ** p).sum() ** (1 / p)
            into = (np.abs(before[a][..., i]) ** p).sum() ** (1 / p)
            after[a][..., i] *= np.sqrt(out / (c * into))
            after[b][..., i, :] /= np.sqrt(out / (c * into))
    return after


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.5, 8])
def test_any_p_and_mixed_ranks(p):
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (1, 1, 4, 5), (5, 6), (6, 2)]
    kernels = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]
    for actual, expected in zip(
        enorm_sweep(kernels, c=1.3, p=p), restated(kernels, 1.3, p), strict=True
    ):
        assert_close(actual, expected, 3e-6)


def test_the_last_pair_is_balanced_on_request():
    kernels = [jnp.full((2, 3), 4.0), jnp.full((3, 1), 1.0)]
    for kernel, same in zip(kernels, enorm_sweep(kernels), strict=True):
        np.testing.assert_array_equal(kernel, same)
    for _ in range(2):
        kernels = enorm_sweep(kernels, balance_last=True)
    norms = [np.linalg.norm(kernels[0], axis=0), np.linalg.norm(kernels[1], axis=1)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-6)


@pytest.mark.parametrize("kernels", [[], [jnp.ones((2, 3))]], ids=["none", "one"])
def test_nothing_to_balance(kernels):
    assert len(enorm_sweep(kernels)) == len(kernels)


def test_a_unit_without_weights_keeps_its_scale():
    """The published code makes it NaN."""
    kernels = [
        jnp.ones((2, 3)).at[:, 1].set(0),
        jnp.full((3, 3), 4.0).at[2].set(0),
        jnp.ones((3, 1)),
    ]
    after = enorm_sweep(kernels)
    np.testing.assert_array_equal(after[0][:, 1:], kernels[0][:, 1:])
    np.testing.assert_array_equal(after[1][1:], kernels[1][1:])
    assert np.all(np.asarray(after[0][:, 0]) > 1)


def test_tiny_and_huge_weights():
    """The squares of these are not float32 numbers."""
    kernels = [jnp.full((2, 2), 1e-30), jnp.full((2, 2), 1e30), jnp.ones((2, 2))]
    assert_close(enorm_sweep(kernels)[0], np.ones((2, 2)), 1e-6)


ONES = [jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones((4, 1))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c": 0.0}, r"`c` \(=0.0\) must be positive and finite"),
        ({"c": -1.0}, r"`c` \(=-1.0\) must be positive and finite"),
        ({"p": float("inf")}, r"`p` \(=inf\) must be positive and finite"),
        ({"p": -2}, r"`p` \(=-2\) must be positive and finite"),
        (
            {"kernels": [jnp.ones((2, 3)), jnp.ones((4, 4)), jnp.ones((4, 1))]},
            r"does not chain: 'kernels\[0\]' writes 3 units, but 'kernels\[1\]' reads 4",
        ),
        ({"kernels": [jnp.ones(3), *ONES]}, r"`kernels\[0\]` has shape \(3,\), but a kernel has"),
        ({"momenta": ONES[:2]}, r"`momenta` have shapes .* they must be those of the kernels"),
        ({"momenta": ONES[::-1]}, r"`momenta` have shapes .* they must be those of the kernels"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        enorm_sweep(**{"kernels": ONES, **arguments})
