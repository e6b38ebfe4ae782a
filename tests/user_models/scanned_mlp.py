"""A deep MLP whose equal layers are one `nn.scan`: their parameters are stacked."""

import flax.linen as nn

from tests.user_models import UserModel, normal


class Layer(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, _):
        y = nn.BatchNorm(use_running_average=not self.train, name="norm")(x)
        return x + nn.Dense(x.shape[-1])(nn.gelu(y)), None


class DeepMLP(nn.Module):
    depth: int = 4

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(8, name="embed")(x)
        blocks = nn.scan(
            nn.remat(Layer, prevent_cse=False),
            variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = blocks(train, name="blocks")(x, None)
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train, name="last")(x))


rows = normal(7, 5)
USER_MODEL = UserModel(DeepMLP(), ((rows,),), {"train": True}, {"train": False}, converted=2)
