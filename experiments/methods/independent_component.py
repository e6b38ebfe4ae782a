"""Independent-component layers, in networks of the paper's three orders."""

from functools import partial

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method
from experiments.models.ic_resnet import ICResNet
from unitnorm_jax.contrib.independent_component import IndependentComponent


def ic(config: NormConfig, context: Context, order: str = "relu-ic-conv") -> Method:
    """``IndependentComponent`` in an ``ICResNet`` of that order."""
    norm = partial(
        IndependentComponent,
        momentum=config.momentum,
        epsilon=config.epsilon,
        **context.axes,
        rate=config.ic_rate,
    )
    return Method(norm=norm, network=partial(ICResNet, order=order))
