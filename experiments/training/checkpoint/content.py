"""What a checkpoint holds, and how it is recognized."""

import hashlib
import json
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.training.steps import TrainState

ACCURACY = "accuracy"
# The fields of `Checkpoint` that are no arrays.
DESCRIPTION = ("data", "records", "config", "loop", ACCURACY)


class CheckpointError(ValueError):
    """A checkpoint is missing, cannot be written, or is not what was saved.

    Attributes:
        problem: What is wrong with which checkpoint; the message goes on with what to do.
    """

    def __init__(
        self, problem: str, advice: str = "Restore the folder from a copy, or repeat the run."
    ) -> None:
        """Make the message."""
        super().__init__(f"{problem}. {advice}")
        self.problem = problem


class Checkpoint(NamedTuple):
    """What one checkpoint holds: all that the rest of a run depends on.

    Attributes:
        state: Parameters, running statistics, optimizer, random key and step.
        data: Position in the training batches, ``Pipeline.state()``.
        records: Valid length of each file of the records, ``Recorder.lengths()``.
        config: The configuration, ``config.to_dict``.
        loop: What else the training loop goes on with; any JSON.
        arrays: Arrays that go with the state, such as the probe's snapshot; ``{}`` for none.
        accuracy: Test accuracy of the state, None where it was not evaluated.
    """

    state: TrainState
    data: Any = None
    records: Any = None
    config: Any = None
    loop: Any = None
    arrays: Any = MappingProxyType({})
    accuracy: float | None = None

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.state.step)


def checksums(tree: Any) -> dict[str, str]:
    """Return the SHA-256 of dtype, shape and bytes of every array of ``tree``, by its path.

    Example:
        >>> import numpy as np
        >>> checksums({"a": np.zeros(2)}) == checksums({"a": np.array([0.0, 0.0])})
        True
        >>> checksums({"a": np.zeros(2)}) == checksums({"a": np.zeros(2, np.float32)})
        False
        >>> list(checksums({"a": {"b": np.zeros(2)}}))
        ['a/b']
    """
    sums = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
        sums[jax.tree_util.keystr(path, simple=True, separator="/")] = digest.hexdigest()
    return sums


def state_arrays(state: TrainState) -> dict[str, Any]:
    """Return a copy of the arrays of ``state`` on the host: what a checkpoint holds of it."""
    return on_host(arrays_of(state))


def arrays_of(state: TrainState) -> dict[str, Any]:
    """Return the arrays of ``state`` that a checkpoint holds, as they are."""
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }


def on_host(tree: Any) -> Any:
    """Return a copy of ``tree`` on the host."""
    # A copy: on a CPU, `asarray` gives a view of memory that the next update may reuse, while the
    # checkpoint is still being written.
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(tree))


def all_finite(tree: Any) -> bool:
    """Return whether every number in every array of ``tree`` is finite."""
    return all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def json_checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of ``content`` as JSON."""
    # Through JSON, so that tuples and lists are the same.
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
