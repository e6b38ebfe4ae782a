"""The penalty on the unitized bound: restated, differentiated, descended."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from unitnorm_jax import ics
from unitnorm_jax.linen import UnitizedBatchNorm

POSITIONS = {"a": 9, "b/c": 1, "b/d": 4}
SIZES = {"a": 4, "b/c": 6, "b/d": 3}


def params(alphas):
    return {
        "a": {"alpha": alphas["a"], "scale": jnp.full(4, 7.0)},
        "b": {"c": {"alpha": alphas["b/c"]}, "d": {"alpha": alphas["b/d"]}, "kernel": jnp.ones(2)},
    }


def restated(alphas, unit, relative):
    """The formula, layer by layer, with the table of radii written out."""
    terms = []
    for layer, alpha in alphas.items():
        p, c, a = POSITIONS[layer], SIZES[layer], [float(x) for x in alpha]
        radius = {"reference": p, "sample": 1.0, "rms": (p * c) ** 0.5, "position": p**0.5}
        r = radius[unit] if isinstance(unit, str) else (p / unit) ** 0.5
        bound = 2 * (r * max(map(abs, a)) + (p * c) ** 0.5 * max(abs(1 - x) for x in a))
        terms.append(bound / (2 * (p * c) ** 0.5) if relative else bound)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("unit", ["reference", "sample", "rms", "position", 0.3])
def test_restated(unit):
    rng = np.random.default_rng(0)
    alphas = {k: rng.normal(0.4, 0.6, n).astype(np.float32) for k, n in SIZES.items()}
    for relative in (True, False):
        found = ics.unitized_bound_penalty(params(alphas), POSITIONS, unit=unit, relative=relative)
        np.testing.assert_allclose(found, restated(alphas, unit, relative), rtol=1e-6)


def test_gradient(x64):
    rng = np.random.default_rng(1)
    alphas = {k: jnp.asarray(rng.uniform(0.1, 0.9, n)) for k, n in SIZES.items()}

    def penalty(alphas):
        return ics.unitized_bound_penalty(params(alphas), POSITIONS, unit="sample")

    check_grads(penalty, (alphas,), order=1)
    tied = jax.grad(penalty)({k: jnp.full(n, 0.5) for k, n in SIZES.items()})
    for name, grad in tied.items():  # Equal channels share the gradient.
        d = POSITIONS[name] * SIZES[name]
        np.testing.assert_allclose(grad, (1 / d**0.5 - 1) / SIZES[name] / 3, rtol=1e-12)


@pytest.mark.parametrize(
    ("unit", "a", "ends"),
    [
        ("sample", 0.0, 1.0),  # R = 1 < 6
        ("rms", 0.25, 0.25),  # R = 6 = 6: no pull
        ("reference", 0.25, 0.0),  # R = 9 > 6
        ("reference", -0.5, 0.0),
    ],
)
def test_where_it_pulls(unit, a, ends):
    alpha = jnp.full(4, a)
    for _ in range(60):
        grad = jax.grad(
            lambda alpha: ics.unitized_bound_penalty({"a": {"alpha": alpha}}, 9, unit=unit)
        )(alpha)
        alpha = alpha - 0.1 * grad
    np.testing.assert_allclose(alpha, ends, atol=0.03)


def test_stacked_layers_are_layers():
    """What nn.scan makes: one alpha of shape (layers, channels)."""
    alpha = jnp.stack([jnp.full(4, a) for a in (1.0, 0.0, 0.0)])
    penalty = partial(ics.unitized_bound_penalty, positions=7, unit="sample")
    np.testing.assert_allclose(penalty({"a": {"alpha": alpha}}), (1 / 28**0.5 + 2) / 3, rtol=1e-6)
    apart = {str(i): {"alpha": a} for i, a in enumerate([*alpha, jnp.full(4, 0.3)])}
    both = {"a": {"alpha": alpha}, "b": {"alpha": jnp.full(4, 0.3)}}
    for relative in (True, False):
        np.testing.assert_allclose(
            penalty(both, relative=relative), penalty(apart, relative=relative), rtol=1e-6
        )


def test_boxed_alphas_and_integers():
    alpha = jnp.array([0.25, 0.5])
    expected = ics.unitized_bound_penalty({"a": {"alpha": alpha}}, 200, unit="sample")
    boxed = {"a": {"alpha": nn.Partitioned(alpha, ("model",))}}
    positions = (np.uint8(200), np.int64(200), jnp.int32(200))
    for p in positions:  # 200 * 2 is no uint8
        for given in (p, {"a": p}):
            found = ics.unitized_bound_penalty(boxed, given, unit="sample")
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    grad = jax.grad(lambda v: ics.unitized_bound_penalty(v, 200, unit="sample"))(boxed)
    assert isinstance(grad["a"]["alpha"], nn.Partitioned)
    whole = {"a": {"alpha": np.array([0, 1], np.int8)}}
    np.testing.assert_allclose(
        ics.unitized_bound_penalty(whole, 200, unit=np.int64(2)),
        ics.unitized_bound_penalty({"a": {"alpha": jnp.array([0.0, 1.0])}}, 200, unit=2),
    )


def test_no_layer_has_an_alpha():
    assert ics.unitized_bound_penalty({"head": {"kernel": jnp.ones(3)}}) == 0.0


def test_missing_positions():
    alphas = {k: np.zeros(n, np.float32) for k, n in SIZES.items()}
    with pytest.raises(ValueError, match=r"`positions` has no entry for the layer 'b/d'; it has"):
        ics.unitized_bound_penalty(params(alphas), {"a": 9, "b/c": 1})


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        norm = UnitizedBatchNorm
        x = norm(use_running_average=not train, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = norm(use_running_average=not train, name="stride")(nn.Conv(6, (3, 3), strides=2)(x))
        x = norm(use_running_average=not train, sample_axis=1, name="turned")(jnp.swapaxes(x, 0, 1))
        return norm(use_running_average=not train, name="dense")(x.mean((0, 2)))


def test_layer_positions():
    shape = jax.ShapeDtypeStruct((2, 8, 6, 3), jnp.float32)
    found = ics.layer_positions(Net(), shape, train=False)
    assert found == {"first": 48, "stride": 12, "turned": 12, "dense": 1}


@pytest.mark.parametrize(("sample_axis", "positions"), [((0, 1), 4), ((2, -4), 3), (None, 24)])
def test_layer_positions_of_several_sample_axes_or_none(sample_axis, positions):
    layer = UnitizedBatchNorm(use_running_average=True, sample_axis=sample_axis)
    assert ics.layer_positions(layer, jnp.zeros((2, 3, 4, 5))) == {"": positions}


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.Dense(4)(x)
        scale = nn.with_partitioning(nn.initializers.zeros, ("model",))
        alpha = self.param("alpha", scale, (4,))
        return alpha.reshape(1, 1, 4) * x, None


def test_layer_positions_of_scanned_and_boxed_layers():
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            layers = nn.scan(
                Inner,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            return layers(name="layers")(x, None)[0]

    x = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)
    # The layer returns (output, None): Inner itself has the alpha.
    assert ics.layer_positions(Scanned(), x) == {"layers": 5}


def test_a_layer_at_two_sizes():
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = UnitizedBatchNorm(use_running_average=True, name="norm")
            return norm(norm(x)[:, ::2])

    with pytest.raises(
        ValueError, match=r"'norm' is called with 8 and with 4 positions, .* by hand"
    ):
        ics.layer_positions(Shared(), jax.ShapeDtypeStruct((2, 8, 3), jnp.float32))


def test_several_feature_axes_are_not_taken_for_layers():
    model = UnitizedBatchNorm(use_running_average=True, axis=(1, 2))
    with pytest.raises(ValueError, match=r"has several feature axes \(alpha of shape \(4, 3\)\)"):
        ics.layer_positions(model, jnp.zeros((2, 4, 3)))
