"""A small network on a noisy chip."""

import functools
from functools import partial

import flax.linen as nn
import jax

from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm
from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise, collect_statistics
from unitnorm_jax.linen import UnitizedBatchNorm


class Net(nn.Module):
    norm: str = "bn"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        norm = {
            "bn": partial(nn.BatchNorm, axis_name=self.axis_name),
            "ubn": partial(
                UnitizedBatchNorm,
                axis_name=self.axis_name,
                alpha_init=nn.initializers.constant(0.4),
            ),
            "estimated": partial(EstimatedBatchNorm, rate=0.1),
        }[self.norm]
        x = nn.Conv(6, (3, 3), name="conv_0")(x)
        x = nn.relu(norm(use_running_average=not train, name="norm_0")(x))
        x = nn.Conv(5, (3, 3), name="conv_1")(x)
        x = nn.relu(norm(use_running_average=not train, name="norm_1")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


BATCHES = jax.random.normal(jax.random.key(0), (3, 16, 6, 6, 2)) + 1


@functools.cache
def setup(norm="bn"):
    """A model, and its variables on a noisy chip."""
    model = Net(norm)
    variables = jax.jit(model.init)(jax.random.key(1), BATCHES[0])
    chip = additive_noise(0.2)(jax.random.key(2), variables["params"])
    collect = jax.jit(partial(collect_statistics, model))
    return model, {**variables, "params": chip}, collect
