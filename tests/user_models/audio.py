"""A speech model: time comes first, then the batch; the norm is over both."""

import flax.linen as nn

from tests.user_models import UserModel, normal


class Acoustic(nn.Module):
    @nn.compact
    def __call__(self, frames, training):
        x = frames  # (time, n, bands)
        for width in (8, 6):
            before = nn.Dense(width, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not training, axis=2)(before))
        x = nn.RNN(nn.GRUCell(6), time_major=True)(x)
        return nn.log_softmax(nn.Dense(5)(x))


frames = normal(9, 6, 4)
USER_MODEL = UserModel(
    Acoustic(),
    ((frames,),),
    {"training": True},
    {"training": False},
    converted=2,
    probe={"sample_axis": 1},
)
