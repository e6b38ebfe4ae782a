"""Measures the internal covariate shift of a run while it trains.

At every ``every``-th update t of every norm, the outputs of all its normalization layers are
compared between the states after updates t - lag and t (lag = 1: the shift of one update) on the
same probe images. These are training images as they are, not augmented, drawn once: the same for
all norms, seeds and updates, so that two norms can be compared update by update, and one compiled
probe serves all seeds.
"""

import statistics
import time
from contextlib import closing
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config.experiment import ProbeConfig
from experiments.data import Dataset
from experiments.methods import NoNorm
from experiments.methods.own_bounds import BoundedProbe
from experiments.training.program import Program
from experiments.training.record import Recorder
from experiments.training.steps import STREAMS, TrainState
from unitnorm_jax import ics

SNAPSHOT = "probe_snapshot"
IMAGES_SEED = 0  # Of the draw of the probe images; not a run's seed.
TIMED = 5  # Measurements by which one is timed.


def has_normalization(model: Any) -> bool:
    """Return whether the network has any layer to probe."""
    norms = model.norm if isinstance(model.norm, tuple) else (model.norm,)
    return any(norm is not NoNorm for norm in norms)


def probe_batch(config: ProbeConfig, dataset: Dataset) -> tuple[jax.Array, jax.Array]:
    """Return what all norms and seeds are probed on: ``(images, h, w, c)``, and the labels.

    Raises:
        ValueError: If there are fewer training images.
    """
    available = dataset.train_size
    if config.images > available:
        raise ValueError(
            f"`probe.images` (={config.images}) must be at most the number of training images: "
            f"{available} in {dataset.name}."
        )
    with closing(dataset.pipeline(IMAGES_SEED, config.images)) as pipeline:
        batch = next(iter(pipeline.batches(0)))
    return dataset.standardize(batch["image"]), jnp.asarray(batch["label"])


def with_probe(
    program: Program,
    config: ProbeConfig,
    dataset: Dataset,
    batch: tuple[jax.Array, jax.Array] | None = None,
) -> Program:
    """Return ``program`` with a probe of its normalization layers, where it is to have one.

    It gets none if ``config.every`` is 0, or the network has no normalization layer and is not to
    be probed without (``config.places``).

    Args:
        program: What is probed.
        config: The options.
        dataset: The images.
        batch: What to probe on; default: ``probe_batch``.

    Raises:
        ValueError: If there are fewer training images than the probe is to use.
    """
    without = config.places == "all"
    if not config.every or not (without or has_normalization(program.model)):
        return program
    paths = set(program.layers)

    def wanted(module: nn.Module, method: str) -> bool:
        # By path, not by class: each norm is probed in the same places of the network.
        found = method == "__call__" and module.path in paths
        return found and (without or not isinstance(module, NoNorm))

    images, labels = probe_batch(config, dataset) if batch is None else batch
    rngs = {name: jax.random.key(i) for i, name in enumerate(STREAMS)}

    def loss(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        train = config.mode == "train"
        mutable = ["batch_stats"] if train else []
        logits, _ = program.model.apply(variables, images, train=train, rngs=rngs, mutable=mutable)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    probe: Any = ics.ICSProbe(
        program.model,
        images,
        wanted,
        mode=config.mode,
        train_kwargs={"train": True},
        eval_kwargs={"train": False},
        rngs=rngs,
        outputs=("", "[0]"),  # Kalman layers return moments too.
        measures=config.measures,
        loss=loss if "gradient" in config.measures else None,
    )
    # Running statistics may be far from those of the probe images: the bound needs the latter.
    if program.bound is not None and config.mode == "train":
        probe = BoundedProbe(probe, program.bound)
    return program._replace(probe=probe)


def compile_probe(program: Program, images: jax.Array | np.ndarray) -> Program:
    """Return ``program`` with its probe, if it has one, compiled and timed.

    No measurement in a run compiles. The time is that of a measurement by itself, from the copy of
    the earlier state to the rows, each part waited for; of one that the pairing settles, as after a
    small update, and not the exact solver.

    Args:
        program: A compiled program.
        images: A batch of training images.
    """
    probe = program.probe
    if probe is None:
        return program
    variables = _variables(program.init(jax.random.key(0), images))
    times = []
    for _ in range(1 + TIMED):
        start = time.perf_counter()
        kept = jax.block_until_ready(probe.keep(variables))
        probe(kept, variables).rows()
        times.append(time.perf_counter() - start)
    return program._replace(probe_seconds=statistics.median(times[1:]))  # The first compiles.


class RunProbe:
    """``ics.ICSRecord`` of one run: writes the rows as they come, and goes into checkpoints.

    A measurement is handed to the device like an update. Its rows are written when the next state
    comes, while the device computes that, or by ``flush``, which comes before every checkpoint. (On
    CPUs JAX waits for a program that can call the host, as the probe's does.)

    The arrays of a state are donated to the next update, so a snapshot of network and statistics is
    kept from update t - lag to t. The run itself is not touched: a probed run and one that is not
    are equal bit by bit. The snapshot goes into the checkpoints: a resumed run measures what it
    would have measured.

    Args:
        program: Its probe, compiled; without one this does nothing.
        config: When to measure.
        recorder: Takes the rows: one per measurement and layer, in ``ics.jsonl``.

    Attributes:
        seconds: What the measurements take by themselves: their number times the time of one, see
            ``compile_probe``.
    """

    def __init__(self, program: Program, config: ProbeConfig, recorder: Recorder) -> None:
        """Start before the first state."""
        self.seconds = 0.0
        self._each, self._recorder = program.probe_seconds, recorder
        probe: Any = program.probe  # A BoundedProbe measures like an ICSProbe.
        self._record = ics.ICSRecord(probe, config.every, config.lag) if probe else None

    def __call__(self, step: int, state: TrainState) -> None:
        """See the state after ``step`` updates; give it the first one of a run too.

        Args:
            step: Updates done.
            state: The state; it is read here, before any update that it is given to, and not kept.

        Raises:
            OSError: If the rows of the measurement before cannot be written.
        """
        self.flush()
        if self._record is not None and self._record.looks_at(step):
            measured = self._record(step, _variables(state))
            self.seconds += 0.0 if measured is None else self._each

    def flush(self) -> None:
        """Write the rows of the last measurement, which it waits for, unless they are written.

        Raises:
            OSError: If they cannot be written.
        """
        # One array of each layer, so that layers have the same names under every norm.
        rows = [row | {"output": ""} for row in (self._record.take() if self._record else ())]
        if rows:
            self._recorder.write_lines("ics", rows)
            self._recorder.write_scalars(rows[0]["step"], ics.scalars(rows))

    def looks_at(self, step: int) -> bool:
        """Return whether it does anything with the state after ``step`` updates."""
        return self._record is not None and self._record.looks_at(step)

    @property
    def kept_step(self) -> int | None:
        """Updates done at the snapshot that is kept; None if there is none."""
        kept = self._record and self._record.kept
        return kept[0] if kept else None

    def arrays(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, besides ``kept_step``: the snapshot."""
        kept = self._record and self._record.kept
        return {SNAPSHOT: ics.unpack(kept[1])} if kept else {}

    @staticmethod
    def templates(state: TrainState) -> dict[str, Any]:
        """Return templates of ``arrays``, for a run with states like this one."""
        return {SNAPSHOT: _variables(state)}

    def go_on(self, kept_step: int | None, arrays: dict[str, Any]) -> None:
        """Take up what a checkpoint had of it."""
        if kept_step is not None and self._record is not None:
            self._record.resume(kept_step, arrays[SNAPSHOT])


def _variables(state: TrainState) -> dict[str, Any]:
    """Network and statistics, on one device: every device has all of them, and one measures."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if len(jax.tree.leaves(variables)[0].sharding.device_set) == 1:
        return variables
    return jax.tree.map(lambda x: x.addressable_data(0), variables)
