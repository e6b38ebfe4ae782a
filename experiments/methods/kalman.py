"""Batch Kalman Normalization, and batch normalization of the same slices."""

from functools import partial

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method
from experiments.models.kalman_resnet import KalmanResNet
from unitnorm_jax.contrib.batch_kalman_norm import BatchKalmanNorm


def kalman(config: NormConfig, context: Context) -> Method:
    """``contrib.batch_kalman_norm.BatchKalmanNorm``, predictions by formulas."""
    norm = partial(
        BatchKalmanNorm,
        momentum=config.momentum,
        epsilon=config.epsilon,
        **context.axes,
        slice_size=config.slice_size,
        gain=config.gain,
    )
    return Method(norm=norm, network=KalmanResNet)


def kalman_published(config: NormConfig, context: Context) -> Method:
    """Return the same as in the authors' code: of the state before normalization, by sampling."""
    method = kalman(config, context)
    norm = partial(method.norm, moments_of="input", bessel_correction=True)
    return Method(norm=norm, network=partial(KalmanResNet, prediction="sampling"))


def bn_slices(config: NormConfig, context: Context) -> Method:
    """Batch normalization of each slice on its own: a gain of 1."""
    method = kalman(config, context)
    return Method(
        norm=partial(method.norm, gain=1.0), network=partial(KalmanResNet, prediction=None)
    )
