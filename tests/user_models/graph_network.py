"""Message passing on one padded graph: nodes are the samples, some of them are padding."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tests.user_models import UserModel, normal


class GraphNetwork(nn.Module):
    @nn.compact
    def __call__(self, nodes, senders, receivers, is_node, train):
        x = nn.Dense(8)(nodes)
        for i in range(2):
            messages = nn.Dense(8)(x[senders])
            gathered = jnp.zeros_like(x).at[receivers].add(messages)
            norm = nn.BatchNorm(use_running_average=not train, name=f"bn_{i}")
            x = x + nn.relu(norm(gathered, mask=is_node[:, None]))
        return nn.Dense(3)(x)


real = np.arange(12) < 9
edges = np.random.default_rng(0).integers(0, 9, (2, 20))
nodes = np.where(real[:, None], normal(12, 4), np.float32(1e6))
USER_MODEL = UserModel(
    GraphNetwork(),
    ((nodes, *edges, real),),
    {"train": True},
    {"train": False},
    converted=2,
    probe={"mask": real},
)
