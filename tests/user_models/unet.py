"""A U-Net: skip connections, transposed convolutions, a helper class in `setup`."""

import flax.linen as nn
import jax.numpy as jnp

from tests.user_models import UserModel, normal


class DoubleConv(nn.Module):
    features: int

    def setup(self):
        self.convs = [nn.Conv(self.features, (3, 3), use_bias=False) for _ in range(2)]
        self.norms = [nn.BatchNorm(momentum=0.9) for _ in range(2)]

    def __call__(self, x, train):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.relu(norm(conv(x), use_running_average=not train))
        return x


class UNet(nn.Module):
    widths: tuple[int, ...] = (2, 4)

    def setup(self):
        self.down = [DoubleConv(width) for width in self.widths]
        self.bottom = DoubleConv(2 * self.widths[-1])
        self.up = [nn.ConvTranspose(width, (2, 2), (2, 2)) for width in self.widths[::-1]]
        self.merge = [DoubleConv(width) for width in self.widths[::-1]]
        self.head = nn.Conv(1, (1, 1))

    def __call__(self, x, train: bool = False):
        skips = []
        for block in self.down:
            skips.append(block(x, train))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = self.bottom(x, train)
        for up, merge, skip in zip(self.up, self.merge, skips[::-1], strict=True):
            x = merge(jnp.concatenate([skip, up(x)], -1), train)
        return self.head(x)


images = normal(5, 8, 8, 1)
USER_MODEL = UserModel(UNet(), ((images,),), {"train": True}, {"train": False}, converted=10)
