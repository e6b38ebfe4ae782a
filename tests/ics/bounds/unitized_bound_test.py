import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitnorm_jax.ics import bounds

UNITS = ("reference", "sample", "rms", "position", 0.3)


def layer(xhat, alpha, scale, bias, unit, epsilon=0.0):
    """The specification's formula in numpy, xhat (n, p, c)."""
    _, p, c = xhat.shape
    square = xhat**2
    s = {
        "reference": square.sum((1, 2), keepdims=True) / p**2,
        "sample": square.sum((1, 2), keepdims=True),
        "rms": square.sum((1, 2), keepdims=True) / (p * c),
        "position": square.sum(2, keepdims=True),
        0.3: 0.3 * square.mean(1, keepdims=True).sum(2, keepdims=True),
    }[unit]
    with np.errstate(divide="ignore"):
        r = np.where(s + epsilon > 0, 1 / np.sqrt(s + epsilon), 0)
    return scale * xhat * (alpha * r + 1 - alpha) + bias


def normalized(rng, n, p, c, noise):
    """Batch-normalized heavy-tailed values, the statistics off by `noise`."""
    x = rng.standard_t(3, (n, p, c)) * rng.lognormal(size=c)
    mean, var = x.mean((0, 1)), x.var((0, 1))
    mean = mean + noise * rng.normal(size=c) * np.sqrt(var)
    return (x - mean) / np.sqrt(var * np.exp(noise * rng.normal(size=c)))


def mean_norm(xhat):
    return np.sqrt((xhat**2).sum((1, 2))).mean()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("p", "c"), [(1, 6), (16, 4)])
def test_radius_is_the_norm_of_a_unitized_sample(unit, p, c):
    xhat = normalized(np.random.default_rng(0), 9, p, c, 1.0)
    norms = np.sqrt((layer(xhat, 1.0, 1.0, 0.0, unit) ** 2).sum((1, 2)))
    np.testing.assert_allclose(norms, bounds.unit_radius(unit, p, c), rtol=1e-12)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(UNITS),
    st.sampled_from([(2, 1, 1), (8, 1, 5), (10, 9, 3)]),
    st.sampled_from([0.0, 1e-3, 1.0]),
    st.sampled_from([0.0, 0.1, 3.0]),
    st.integers(0, 2**31),
)
def test_bound_holds_with_other_parameters_after(exact, unit, shape, epsilon, noise, seed):
    n, p, c = shape
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        alpha, scale, bias = rng.normal(0.5, 0.7, c), rng.normal(1, 0.5, c), rng.normal(size=c)
        sides.append((normalized(rng, n, p, c, noise), alpha, scale, bias))
    (before, *old), (after, *new) = sides
    truth = exact(layer(before, *old, unit, epsilon), layer(after, *new, unit, epsilon))
    bound = bounds.unitized_upper_bound(
        *old,
        channels=c,
        positions=p,
        unit=unit,
        alpha_after=new[0],
        scale_after=new[1],
        bias_after=new[2],
        norm_before=mean_norm(before),
        norm_after=mean_norm(after),
    )
    assert truth <= float(bound) * (1 + 1e-5)
    # With the batch's own statistics E|xhat| need not be measured.
    same = exact(layer(before, *old, unit, epsilon), layer(after, *old, unit, epsilon))
    default = bounds.unitized_upper_bound(*old, channels=c, positions=p, unit=unit)
    if noise == 0:
        assert same <= float(default) * (1 + 1e-5)
    # The specification's form, with the parameters shared, is never below the general one.
    alpha, scale, _ = (np.abs(v) for v in (old[0], old[1], old[2]))
    spec = 2 * bounds.unit_radius(unit, p, c) * alpha.max()
    spec += np.abs(1 - old[0]).max() * 2 * np.sqrt(p * c)
    assert float(default) <= scale.max() * spec * (1 + 1e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([1, 4, 64, 512]),
    st.sampled_from([0.0, 1.0, 10.0]),  # at 100 squares of xhat underflow, also in float64
    st.integers(0, 2**31),
)
def test_at_alpha_one_two_whatever_the_dimension_and_the_noise(exact, c, noise, seed):
    rng = np.random.default_rng(seed)
    y = [layer(normalized(rng, 8, 1, c, noise), 1.0, 1.0, 0.0, "sample") for _ in range(2)]
    assert float(bounds.unitized_upper_bound(1.0, channels=c, unit="sample")) == 2
    assert exact(*y) <= 2 + 1e-9  # what the linear program is solved to


@pytest.mark.parametrize("unit", UNITS)
def test_attained_by_opposite_points(exact, unit):
    xhat = np.ones((3, 4, 2))  # far from the running mean, on opposite sides
    y = [layer(side * xhat, 1.0, 1.5, 0.25, unit) for side in (1, -1)]
    bound = bounds.unitized_upper_bound(1.0, 1.5, 0.25, channels=2, positions=4, unit=unit)
    assert exact(*y) == pytest.approx(float(bound), rel=1e-6)


def test_attained_by_opposite_points_and_moving_biases(exact):
    xhat = np.full((2, 4, 1), 3.0)
    y = layer(xhat, 0.5, 1.0, 1.0, "sample"), layer(-xhat, 0.25, 2.0, -1.0, "sample")
    bound = bounds.unitized_upper_bound(
        0.5,
        1.0,
        1.0,
        channels=1,
        positions=4,
        unit="sample",
        alpha_after=0.25,
        scale_after=2.0,
        bias_after=-1.0,
        norm_before=6.0,
        norm_after=6.0,
    )
    assert exact(*y) == pytest.approx(float(bound), rel=1e-6)


@pytest.mark.parametrize("n", [3, 10, 100])
def test_approached_with_batch_statistics(exact, n):
    x = np.zeros((n, 1, 1))
    x[0] = 1
    xhat = (x - x.mean()) / x.std()
    y = [layer(side * xhat, 1.0, 1.0, 0.0, "sample") for side in (1, -1)]
    assert exact(*y) == pytest.approx(2 * (n - 2) / n)


def test_parameters_may_be_numbers_or_arrays_and_traced():
    import jax

    bound = jax.jit(lambda a: bounds.unitized_upper_bound(a, channels=3, unit="rms", positions=4))
    assert float(bound(jnp.ones(3))) == pytest.approx(2 * np.sqrt(12))
    assert float(bound(jnp.array([0.0, 1.0, -2.0]))) == pytest.approx((2 * 2 + 2 * 3) * np.sqrt(12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bounds.unit_radius("batch", 1, 1),
            r"`unit` \(='batch'\) must be one of reference",
        ),
        (lambda: bounds.unit_radius(0.0, 1, 1), r"`unit` \(=0.0\) must be positive as a number"),
        (lambda: bounds.unit_radius("rms", 0, 1), r"`positions` \(=0\) and `channels` \(=1\) must"),
        (
            lambda: bounds.unitized_upper_bound(np.ones(3), channels=2),
            r"`alpha` \(=shape \(3,\)\) must be one number or one per channel \(channels=2\)",
        ),
        (
            lambda: bounds.unitized_upper_bound(1.0, bias_after=np.ones((1, 2)), channels=2),
            r"`bias_after` \(=shape \(1, 2\)\) must be one number or one per channel",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
