"""What several experiments have in common."""

import dataclasses

from experiments.config.data import DataSet
from experiments.config.experiment import (
    DataConfig,
    ModelConfig,
    Network,
    NormConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
)
from experiments.config.parallel import DevicesConfig

SEEDS = (0, 1, 2, 3, 4)
IMAGENET_IMAGES = 1_281_167  # Of the training set of 2012.


def authors(
    dataset: DataSet, blocks: int, *, bottleneck: bool = False, batch_size: int = 128
) -> TrainConfig:
    """Return the recipe of the paper's CIFAR experiments, but for the scaling of the images.

    SGD with Nesterov momentum 0.9, 200 epochs, learning rate 0.05 in epochs 0 to 60, 0.01 to 120,
    0.002 to 160 and 0.0004 to the end; 5e-4 * sum of squared kernels added to the loss; images
    mirrored and shifted by up to 4 pixels, zero fill; Keras's epsilon and momentum, and the
    variance as their layer corrects it. Theirs, and not here: images are scaled by the variance of
    each pixel (--data.scaling pixel-variance), running statistics are debiased (no difference after
    some thousand updates), and initial kernels have 0.88 times He's standard deviation.

    It is what to train; ``benchmarks.networks.on_cifar`` has the same ResNet-110 to be compiled
    alone, with the defaults of ``train`` for all that hardly changes the program.

    Args:
        dataset: cifar10 or cifar100.
        blocks: Blocks of each of the three stages.
        bottleneck: Whether they are bottlenecks.
        batch_size: Images per update.
    """
    updates = 50_000 // batch_size
    return TrainConfig(
        seeds=SEEDS,
        target_accuracy=0.9 if dataset == "cifar10" else 0.65,
        evals_per_epoch=1,
        checkpoint_every=5,
        data=DataConfig(dataset=dataset, flip=True, max_shift=4),
        model=ModelConfig(blocks=(blocks,) * 3, widths=(16, 32, 64), bottleneck=bottleneck),
        norm=NormConfig(momentum=0.99, epsilon=1e-3, bessel_correction=True),
        optim=OptimConfig(
            epochs=200,
            batch_size=batch_size,
            learning_rate=0.05,
            schedule="piecewise",
            warmup=0.0,
            boundaries=(61, 121, 161),
            decay_rate=0.2,
            momentum=0.9,
            nesterov=True,
            weight_penalty=5e-4,
        ),
        probe=ProbeConfig(every=updates, images=64),
    )


def short(config: TrainConfig, epochs: int = 15, learning_rate: float = 0.2) -> TrainConfig:
    """Return the same network and data, with one cycle of the learning rate in a few epochs.

    Args:
        config: Of the long training.
        epochs: Passes over the training images.
        learning_rate: Largest learning rate.
    """
    optim = dataclasses.replace(
        config.optim,
        epochs=epochs,
        learning_rate=learning_rate,
        schedule="one-cycle",
        warmup=0.3,
        boundaries=(),
    )
    # Running statistics must follow a few thousand updates.
    norm = dataclasses.replace(config.norm, momentum=0.9)
    probe = dataclasses.replace(config.probe, every=100)
    target = 0.85 if config.data.dataset == "cifar10" else 0.5
    return dataclasses.replace(
        config, optim=optim, norm=norm, probe=probe, target_accuracy=target, checkpoint_every=1
    )


def imagenet(model: Network, batch_size: int = 1024) -> TrainConfig:
    """ResNet on ImageNet as in Flax's example: 100 epochs, linear scaling of the learning rate.

    SGD with Nesterov momentum 0.9, learning rate 0.1 per 256 images after 5 epochs of warm-up,
    cosine decay, weight decay 1e-4 (a penalty of half that), label smoothing 0.1, bfloat16. (The
    authors' recipe is unpublished.)

    Args:
        model: resnet50 or resnet101.
        batch_size: Images per update; the learning rate is proportional to it.

    References:
        https://github.com/google/flax/tree/main/examples/imagenet.
    """
    epochs, warmup = 100, 5
    return TrainConfig(
        seeds=SEEDS,
        evals_per_epoch=1,
        target_accuracy=0.75,
        data=DataConfig(dataset="imagenet2012"),
        model=ModelConfig(name=model),
        norm=NormConfig(momentum=0.9, epsilon=1e-5),
        optim=OptimConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=0.1 * batch_size / 256,
            warmup=warmup / epochs,
            momentum=0.9,
            weight_penalty=0.5e-4,
            label_smoothing=0.1,
        ),
        probe=ProbeConfig(every=IMAGENET_IMAGES // batch_size, images=64),
        devices=DevicesConfig(precision="bfloat16"),
    )
