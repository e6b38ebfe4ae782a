"""A residual network as Flax's ImageNet example writes it: the norm is a partial."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from tests.user_models import UserModel, normal


class Block(nn.Module):
    features: int
    conv: Any
    norm: Any
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x):
        residual = x
        y = nn.relu(self.norm()(self.conv(self.features, (3, 3), self.strides)(x)))
        y = self.norm(scale_init=nn.initializers.zeros_init())(self.conv(self.features, (3, 3))(y))
        if residual.shape != y.shape:
            residual = self.conv(self.features, (1, 1), self.strides, name="conv_proj")(residual)
            residual = self.norm(name="norm_proj")(residual)
        return nn.relu(residual + y)


class ResNet(nn.Module):
    classes: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype
        )
        x = nn.relu(norm(name="bn_init")(conv(4, (3, 3), name="conv_init")(x)))
        for i, features in enumerate((4, 8)):
            x = Block(features, conv, norm, (1 + i, 1 + i))(x)
        return jnp.asarray(nn.Dense(self.classes)(x.mean((1, 2))), self.dtype)


images = normal(6, 8, 8, 3)
USER_MODEL = UserModel(ResNet(), ((images,),), {"train": True}, {"train": False}, converted=6)
