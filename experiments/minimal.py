"""Train a small CNN with BatchNorm and with unitized BatchNorm, and measure the shift of both.

    python -m experiments minimal --steps 300 --every 10 --out minimal.png

One page to copy: a linen network, optax, a jitted step with a ``TrainState``, and ``ICSProbe``,
which measures every few updates how far each normalization layer's output moves, by the Earth Mover
distance. The images are scikit-learn's 1,797 digits. Under a minute on two CPU cores.
"""

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits

from unitnorm_jax import ICSProbe, UnitizedBatchNorm, ics

# The two networks differ in this line alone: UnitizedBatchNorm takes the place of nn.BatchNorm.
NORMS = {"BatchNorm": nn.BatchNorm, "unitized": UnitizedBatchNorm}


class CNN(nn.Module):
    """Three convolutions, each normalized, and a classifier."""

    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits."""
        for i, features in enumerate((16, 32, 64)):
            x = nn.Conv(features, (3, 3), strides=1 + (i > 0), use_bias=False)(x)
            x = nn.relu(self.norm(use_running_average=not train)(x))
        return nn.Dense(10)(x.mean((1, 2)))


class TrainState(train_state.TrainState):
    """Flax's, and the running statistics of the normalization layers."""

    batch_stats: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Any]:
    """Return the state after one update, and the loss before it."""

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(variables, images, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=batch_stats), loss


@jax.jit
def accuracy(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the accuracy in percent."""
    logits = state.apply_fn(state.variables, images, train=False)
    return 100 * jnp.mean(logits.argmax(-1) == labels)


def load_data() -> tuple[np.ndarray, ...]:
    """Return training images and labels, then test images and labels."""
    digits = load_digits()
    images = (digits.images[..., None] / 8 - 1).astype(np.float32)  # (1797, 8, 8, 1) in [-1, 1]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1500], order[1500:]
    return images[train], digits.target[train], images[test], digits.target[test]


def train(name: str, steps: int, every: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the test accuracy of one network, and the shift of its layers over training."""
    x, labels, x_test, labels_test = load_data()
    model = CNN(NORMS[name])
    variables = model.init(jax.random.key(0), x[:1], train=False)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9, nesterov=True)
    state = TrainState.create(apply_fn=model.apply, tx=optimizer, **variables)
    # The shift that an update causes: layers normalize by the statistics of the probe batch.
    probe = ICSProbe(model, x_test[:64], mode="train", train_kwargs={"train": True})
    record = ics.ICSRecord(probe, every=every)
    record(0, state.variables)
    rng = np.random.default_rng(1)
    for step in track(range(1, steps + 1), description=f"{name:9}"):
        batch = rng.choice(len(x), 64, replace=False)
        state, _ = train_step(state, x[batch], labels[batch])
        record(step, state.variables)
    return float(accuracy(state, x_test, labels_test)), record.rows()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, print the table, save the figure."""
    parser = argparse.ArgumentParser("python -m experiments minimal")
    parser.add_argument("--steps", type=int, default=300, help="updates (%(default)s)")
    parser.add_argument("--every", type=int, default=10, help="probe every so many (%(default)s)")
    parser.add_argument("--out", default="minimal.png", help="figure to write (%(default)s)")
    options = parser.parse_args(arguments)
    if not 1 <= options.every <= options.steps:
        parser.error("--every must be from 1 to --steps, or nothing would be measured")
    if Path(options.out).exists() or not Path(options.out).parent.is_dir():
        parser.error(f"--out {options.out} exists, or its folder does not; give another name")
    start = time.perf_counter()
    results = {name: train(name, options.steps, options.every) for name in NORMS}
    headings = ("layer", *NORMS, *(f"{name} / spread" for name in NORMS))
    table = Table(*headings, title="Shift of a layer by one update (Earth Mover distance, median)")
    figure = Figure(figsize=(10, 3), layout="constrained")
    layers = sorted({row["layer"].rpartition("_")[2] for row in results["BatchNorm"][1]})
    for layer, axes in zip(layers, figure.subplots(1, len(layers), sharey=True), strict=True):
        cells = []
        for field in ("value", "relative"):  # In units of the output, and of its own spread.
            for name, (_, rows) in results.items():
                mine = [row for row in rows if row["layer"].endswith(f"_{layer}")]
                cells.append(f"{np.median([row[field] for row in mine]):.2g}")
                if field == "relative":
                    axes.semilogy([r["step"] for r in mine], [r[field] for r in mine], label=name)
        table.add_row(f"norm {layer}", *cells)
        axes.set(title=f"norm {layer}", xlabel="update")
    axes.legend()
    figure.supylabel("distance / spread")
    figure.savefig(options.out)
    Console().print(table)
    scores = ", ".join(f"{name} {score:.1f} %" for name, (score, _) in results.items())
    print(f"Test accuracy: {scores}. {time.perf_counter() - start:.0f} s; wrote {options.out}.")


if __name__ == "__main__":
    main()
