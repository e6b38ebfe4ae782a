"""Numbers that a dtype of JAX does not hold: neither wrapped round nor cut off."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax.contrib.noise_aware_batch_norm import output_noise
from unitnorm_jax.contrib.norm_prop import dataset_stats, norm_prop_kernel
from unitnorm_jax.contrib.weight_standardization import weight_standardization

pytestmark = pytest.mark.rounding


def plain(function):
    """As users call it: in tests, types are checked first."""
    return inspect.unwrap(function)


def test_integers_of_64_bits_do_not_wrap_round():
    x = np.array([[2**33], [2**33 + 2048], [2**33 + 4096]])
    np.testing.assert_allclose(dataset_stats(x).mean, [2.0**33 + 2048], rtol=1e-6)


def test_kernels_of_integers_give_real_ones():
    kernel = np.array([[1, 5], [3, 2], [9, -4]])
    for function in (weight_standardization, norm_prop_kernel):
        expected = function(jnp.asarray(kernel, jnp.float32))
        np.testing.assert_array_equal(plain(function)(jnp.asarray(kernel)), expected)


def test_noise_of_outputs_of_any_size():
    key = jax.random.key(0)
    one = output_noise(key, jnp.ones(4), 0.5)
    for size in (1e-25, 1e25):
        found = output_noise(key, jnp.full(4, size), 0.5)
        np.testing.assert_allclose(found / size, one, rtol=1e-5)
    noisy = plain(output_noise)(key, jnp.full(4, 100, jnp.int8), 0.5)
    np.testing.assert_allclose(noisy, 100 * one, rtol=1e-5)
