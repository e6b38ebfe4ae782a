"""The measurements: plain functions from networks and noise to rows."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data import ArrayDataset
from experiments.studies.noise.networks import Network, Variables
from experiments.training.steps import predicted
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    Noise,
    additive_noise,
    drift_noise,
    multiplicative_noise,
    quantization_noise,
    recalibrate,
)


class Kind(NamedTuple):
    """One kind of noise, with a strength that varies.

    Attributes:
        unit: What the strength is.
        levels: Strengths by default; at the first there is no noise, or next to none.
        make: Gives the noise of the weights from the strength; None is noise of the outputs.
        random: Whether chips differ.
    """

    unit: str
    levels: tuple[float, ...]
    make: Callable[[Any], Noise] | None
    random: bool = True


# Phase-change memory drifts with exponents of this order; they vary between devices.
EXPONENT, SPREAD = 0.05, 0.025

KINDS: dict[str, Kind] = {
    "additive": Kind(
        "std / range of the layer's weights",
        (0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15),
        additive_noise,
    ),
    "multiplicative": Kind("std / weight", (0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0), multiplicative_noise),
    "output": Kind("std / rms of the layer's output", (0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0), None),
    "drift": Kind(
        "time / time of first read",
        (1, 1e1, 1e2, 1e4, 1e6, 1e8, 1e10),
        lambda time: drift_noise(time, exponent=EXPONENT, spread=SPREAD),
    ),
    "quantization": Kind("bits", (8, 6, 5, 4, 3, 2), quantization_noise, random=False),
}
METHODS = ("clean", "recalibrated", "tracked")


class Row(NamedTuple):
    """One measurement: a network on one noisy chip."""

    kind: str
    """A key of ``KINDS``."""
    level: float
    """Strength, in the unit of the kind."""
    norm: str
    method: str
    """"clean": running statistics of training; "recalibrated"; "tracked"."""
    seed: int
    """Of the training."""
    chip: int
    """Draw of the noise."""
    accuracy: float


class Protocol(NamedTuple):
    """How each network is measured.

    Attributes:
        batch_size: Images per forward pass.
        calibration_batches: Batches of training images, without labels, for recalibration.
        rate: Weight of the batch in tracking.
        dynamic: Whether every forward pass has noise of its own (True) or a chip keeps its draw.
    """

    batch_size: int
    calibration_batches: int
    rate: float
    dynamic: bool


def measure(
    network: Network, kind: str, level: float, chip: int, dataset: ArrayDataset, protocol: Protocol
) -> Iterator[Row]:
    """Yield one row per method, on the same chip and all test images.

    Tracking starts from the running statistics of training, and meets the test images in the
    order of the data set.
    """
    noise = _jitted(kind)
    key = jax.random.fold_in(jax.random.key(network.seed), chip)
    strength = np.float32(level)

    def passes(images: np.ndarray, first: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Batches, each with the key of its noise; ``first`` numbers the passes of a chip."""
        for i, start in enumerate(range(0, len(images), protocol.batch_size)):
            number = first + i if protocol.dynamic else 0
            batch = dataset.standardize(images[start : start + protocol.batch_size])
            yield batch, jax.random.fold_in(key, number)

    def on_chip(variables: Variables, key: jax.Array) -> Variables:
        return {**variables, "params": noise(key, network.variables["params"], strength)}

    def row(method: str, logits: Sequence[jax.Array]) -> Row:
        found = np.concatenate([np.asarray(predicted(y)) for y in logits])
        accuracy = float(np.mean(found == dataset.test_labels))
        return Row(kind, level, network.norm, method, network.seed, chip, accuracy)

    def predict(variables: Variables, first: int) -> list[jax.Array]:
        return [
            network.steps.predict(on_chip(variables, k), x, k, strength)
            for x, k in passes(dataset.test_images, first)
        ]

    # In dynamic noise no two passes share a draw.
    many = 1_000_000
    yield row("clean", predict(network.variables, 0))
    if not network.keeps_statistics:
        return
    images = dataset.train_images[: protocol.batch_size * protocol.calibration_batches]
    collected = [
        network.steps.collect(on_chip(network.variables, k), x, k, strength)
        for x, k in passes(images, many)
    ]
    yield row("recalibrated", predict(recalibrate(network.variables, collected), 2 * many))
    variables, logits = network.variables, []
    for x, k in passes(dataset.test_images, 3 * many):
        y, variables = network.steps.track(
            on_chip(variables, k), x, k, strength, np.float32(protocol.rate)
        )
        logits.append(y)
    yield row("tracked", logits)


@functools.cache
def _jitted(kind: str) -> Callable[..., Variables]:
    """``noise(key, params, strength)``, one program for all strengths."""
    make = KINDS[kind].make
    if make is None:
        return lambda key, params, strength: params
    return jax.jit(lambda key, params, strength: make(strength)(key, params))


def select(rows: Sequence[Row], **fields: object) -> np.ndarray:
    """Accuracies of the rows with these fields, (n,)."""
    return np.array(
        [r.accuracy for r in rows if all(getattr(r, k) == v for k, v in fields.items())]
    )
