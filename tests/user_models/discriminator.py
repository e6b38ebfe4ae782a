"""A DCGAN discriminator: within one step it sees the real images, then the generated ones."""

import flax.linen as nn
import numpy as np

from tests.user_models import UserModel, normal


class Discriminator(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x, train):
        x = nn.leaky_relu(nn.Conv(self.width, (4, 4), strides=2, name="first")(x), 0.2)
        for i in (2, 4):
            x = nn.Conv(self.width * i, (4, 4), strides=2, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1)(x.reshape(x.shape[0], -1))


real = normal(6, 16, 16, 1)
fake = np.tanh(2 * normal(6, 16, 16, 1, seed=1))
USER_MODEL = UserModel(
    Discriminator(), ((real,), (fake,)), {"train": True}, {"train": False}, converted=2
)
