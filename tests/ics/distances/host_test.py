"""Numbers that reach the host are those of the compiled function."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax.ics.distances import _host
from unitnorm_jax.ics.distances._host import call_on_host


@pytest.fixture(params=["in place", "by copy"], autouse=True)
def _way(request, monkeypatch):
    """Both ways on the CPU: the second is that of other devices."""
    if request.param == "by copy":
        monkeypatch.setattr(_host, "buffer_callback", None)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_values_arrive_whole_whatever_the_thread(dtype):
    seen = []

    def double(x, y):
        seen.append((x.dtype, y.dtype))
        return 2 * x + y

    with jax.enable_x64(True):
        x = (jnp.arange(6.0).reshape(2, 3) * np.pi * 1e300).astype(dtype)
        if dtype == jnp.float32:
            x = (jnp.arange(6.0).reshape(2, 3) * np.pi).astype(dtype)
        result = jax.ShapeDtypeStruct(x.shape, dtype)
        call = jax.jit(lambda x: call_on_host(double, result, x, x)).lower(x).compile()
    found = []
    # A thread that knows nothing of enable_x64, as those of JAX.
    thread = threading.Thread(target=lambda: found.append(np.asarray(call(x))))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], 2 * np.asarray(x) + np.asarray(x))
    assert seen == [(np.dtype(dtype), np.dtype(dtype))]


def test_one_call_per_element_of_vmap():
    shapes = []

    def total(x):
        shapes.append(x.shape)
        return x.sum(dtype=np.float32)

    result = jax.ShapeDtypeStruct((), jnp.float32)
    found = jax.vmap(lambda x: call_on_host(total, result, x))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(found, [2, 2, 2])
    assert shapes == [(2,)] * 3
