"""An encoder of padded sequences: attention and the norm see a mask; the batch is a dictionary."""

import flax.linen as nn
import numpy as np

from tests.user_models import UserModel, normal


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, batch, *, deterministic: bool):
        valid = batch["valid"]  # (n, steps)
        x = nn.Dense(8)(batch["values"])
        for _ in range(2):
            attend = nn.make_attention_mask(valid, valid)
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=attend)
            x = nn.BatchNorm(use_running_average=deterministic)(x, mask=valid[..., None])
            x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(x)))
        weights = valid[..., None] / valid.sum(1)[:, None, None]
        return nn.Dense(2)((x * weights).sum(1))


lengths = np.array([3, 7, 5, 2, 6])
batch = {"values": normal(5, 7, 4), "valid": np.arange(7) < lengths[:, None]}
USER_MODEL = UserModel(
    Encoder(), ((batch,),), {"deterministic": False}, {"deterministic": True}, converted=2
)
