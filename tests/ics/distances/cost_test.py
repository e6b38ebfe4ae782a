import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax.ics.distances._cost import cost_error, cost_matrix

SHAPES = [
    (1, 1, 1),
    (3, 5, 1000),  # lanes along the columns
    (70, 65, 33),  # a padded group
    (600, 500, 20),  # blocks of rows, the last one padded
    (65, 64, 5000),  # nested loops
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_error_bound_holds(costs, shape, offset):
    n, m, d = shape
    rng = np.random.default_rng(0)
    x, y = (rng.normal(offset, 1, (k, d)).astype(np.float32) for k in (n, m))
    y[0] = x[0] * np.float32(1 + 2**-22)  # a small distance among large ones
    computed = np.asarray(jax.jit(cost_matrix)(x, y), np.float64)
    error = cost_error(n, m, d, jnp.float32)
    true = costs(x, y)
    assert computed.shape == (n, m)
    assert (np.abs(computed - true) <= error.relative * computed + error.absolute).all()
    assert error.relative < 3e-6
    assert error.absolute < 1e-16


def test_error_bound_is_small_in_a_million_dimensions():
    assert cost_error(512, 512, 10**6, jnp.float32).relative < 4e-6


@pytest.mark.parametrize("shape", [(4096, 4096, 10**5), (64, 64, 10**6), (1, 4096, 10**6)])
def test_no_intermediate_outgrows_the_inputs_and_the_result(shape):
    n, m, d = shape
    aval = [jax.ShapeDtypeStruct((k, d), jnp.float32) for k in (n, m)]
    largest = max(_sizes(jax.make_jaxpr(cost_matrix)(*aval).jaxpr))
    assert largest <= 1.2 * max(n * d, m * d, n * m, 2**18)


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if isinstance(inner, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
                    yield from _sizes(getattr(inner, "jaxpr", inner))


def test_sizes_sees_inside_loops():
    def materialises(x, y):
        return jax.lax.fori_loop(0, 3, lambda i, t: t + (x[:, None] - y[None]).sum(), 0.0)

    aval = jax.ShapeDtypeStruct((50, 40), jnp.float32)
    assert max(_sizes(jax.make_jaxpr(materialises)(aval, aval).jaxpr)) == 50 * 50 * 40
