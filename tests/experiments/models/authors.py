"""The authors' own layers, for the tests against their code."""

from functools import partial

from unitnorm_jax.linen import UnitizedBatchNorm


def paper_norms(
    image_size: int, stages: int = 3, scale_coe: float = 1.0
) -> tuple[partial[UnitizedBatchNorm], ...]:
    """Return the authors' unitization layers, one for each stage of a ``PreActResNet``.

    Their layers differ from the default in three ways, all observed by running their code: the
    variance is corrected, epsilon and momentum are Keras's, and the number of positions is fixed
    when the network is built, whatever the size of the images it is given later.

    Args:
        image_size: Height or width of the (square) images, pixels; 32 for CIFAR.
        stages: Number of stages; each but the first halves the image.
        scale_coe: Further factor of the number of positions.

    Returns:
        One layer factory per stage, for ``PreActResNet(norm=...)``.
    """
    positions = [(-(-image_size // 2**stage)) ** 2 for stage in range(stages)]
    return tuple(
        partial(
            UnitizedBatchNorm,
            momentum=0.99,
            epsilon=1e-3,
            unit=1.0 / (p * scale_coe),
            bessel_correction=True,
        )
        for p in positions
    )
