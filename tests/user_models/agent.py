"""A critic of reinforcement learning: batch renormalization of its own beside `nn.BatchNorm`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.user_models import UserModel, normal


class BatchRenorm(nn.BatchNorm):
    """Statistics of the batch, corrected towards the running ones within limits."""

    r_max: float = 3.0
    d_max: float = 5.0

    @nn.compact
    def __call__(self, x, use_running_average=None, *, mask=None):
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        features = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        var = self.variable("batch_stats", "var", jnp.ones, features)
        centre, spread = mean.value, jnp.sqrt(var.value + self.epsilon)
        if not running:
            batch_mean, batch_std = x.mean(0), jnp.sqrt(x.var(0) + self.epsilon)
            r = jnp.clip(jax.lax.stop_gradient(batch_std / spread), 1 / self.r_max, self.r_max)
            d = jax.lax.stop_gradient((batch_mean - centre) / spread).clip(-self.d_max, self.d_max)
            if not self.is_initializing():
                mean.value = self.momentum * centre + (1 - self.momentum) * batch_mean
                var.value = self.momentum * var.value + (1 - self.momentum) * batch_std**2
            centre, spread = batch_mean - d * batch_std / r, batch_std / r
        scale = self.param("scale", self.scale_init, features)
        return (x - centre) / spread * scale + self.param("bias", self.bias_init, features)


class Critic(nn.Module):
    def setup(self):
        self.norms = (nn.BatchNorm(momentum=0.9), BatchRenorm(momentum=0.9), nn.BatchNorm())
        self.layers = [nn.Dense(16) for _ in self.norms[1:]]
        self.value = nn.Dense(1)

    def features(self, observation, action, train):
        x = jnp.concatenate([observation, action], -1)
        x = self.norms[0](x, use_running_average=not train)
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = nn.relu(norm(layer(x), use_running_average=not train))
        return x

    def __call__(self, observation, action, train):
        return self.value(self.features(observation, action, train))


observation, action = normal(6, 5), np.tanh(normal(6, 2, seed=1))
USER_MODEL = UserModel(
    Critic(),
    ((observation, action),),
    {"train": True},
    {"train": False},
    converted=2,
    left_alone=1,
)
