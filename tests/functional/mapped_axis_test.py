"""A mapped axis that is not there: a ValueError with the way out, from every layer."""

import jax
import jax.numpy as jnp
import pytest

from tests.layers import IMAGES, LAYERS, parametrize
from unitnorm_jax.contrib.batch_channel_norm import channel_activity
from unitnorm_jax.contrib.batch_kalman_norm import Moments, batch_kalman_norm, kalman_update
from unitnorm_jax.contrib.noise_aware_batch_norm import batch_statistics
from unitnorm_jax.functional import BatchStats, batch_norm, unitized_batch_norm
from unitnorm_jax.functional._numerics.devices import check_bound

X = jnp.ones((4, 3))
STATS = BatchStats(jnp.zeros(3), jnp.ones(3))
TRAIN = {"use_running_average": False}
MOMENTS = Moments(jnp.zeros((1, 3)), jnp.ones((1, 3)))
FUNCTIONS = {
    "batch_norm": lambda name: batch_norm(X, STATS, axis_name=name, **TRAIN),
    "unitized_batch_norm": lambda name: unitized_batch_norm(
        X, STATS, jnp.ones(3), axis_name=name, **TRAIN
    ),
    "batch_kalman_norm": lambda name: batch_kalman_norm(
        X, STATS, None, axis_name=name, slice_size=2, **TRAIN
    ),
    "batch_statistics": lambda name: batch_statistics(X, axis_name=name),
    "channel_activity": lambda name: channel_activity(X, axis_name=name),
    "kalman_update": lambda name: kalman_update(MOMENTS, MOMENTS, gain=0.5, axis_name=name),
}
MATCH = r"`axis_name` \(='nowhere'\).*none maps it here.*jax\.vmap.*leave `axis_name` out"


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("jit", [False, True], ids=["", "jit"])
def test_functions(function, jit):
    run = (lambda: jax.jit(lambda: function("nowhere"))()) if jit else lambda: function("nowhere")
    with pytest.raises(ValueError, match=MATCH):
        run()
    jax.vmap(lambda _: function("here"), axis_name="here", axis_size=1)(jnp.ones(1))


def test_one_of_two_axes_is_there():
    with pytest.raises(ValueError, match=r"\('here', 'nowhere'\).*none maps it"):
        jax.vmap(lambda _: check_bound(("here", "nowhere")), axis_name="here")(X)


@parametrize([row for row in LAYERS if row.collective and not row.name.startswith("BatchNorm")])
def test_layers(layer):
    variables = layer.variables()
    x = jnp.ones(layer.shape or IMAGES)
    with pytest.raises(ValueError, match=MATCH):
        jax.eval_shape(lambda: layer.apply(variables, x, axis_name="nowhere"))


def test_running_averages_need_no_axis():
    options = {"use_running_average": True, "axis_name": "nowhere"}
    unitized_batch_norm(X, STATS, jnp.ones(3), **options)


def test_it_is_still_the_error_that_jax_raises():
    with pytest.raises(NameError, match="unbound axis name: nowhere"):
        FUNCTIONS["batch_norm"]("nowhere")
