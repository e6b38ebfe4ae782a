"""Checkpoints of a training state: orbax, plus a checksum that notices flipped bytes."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.steps import TrainState


class CheckpointError(ValueError):
    """A checkpoint is missing, or is not what was saved."""


def checksum(tree: Any) -> str:
    """Returns the SHA-256 of the names, dtypes, shapes and bytes of all arrays of ``tree``.

    Example:
        >>> import numpy as np
        >>> checksum({"a": np.zeros(2)}) == checksum({"a": np.array([0.0, 0.0])})
        True
        >>> checksum({"a": np.zeros(2)}) == checksum({"b": np.zeros(2)})
        False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def state_arrays(state: TrainState) -> dict[str, Any]:
    """Returns the arrays of ``state`` on the host: what a checkpoint holds."""
    return jax.tree.map(np.asarray, jax.device_get(_arrays(state)))


def _arrays(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }


def all_finite(tree: Any) -> bool:
    """Whether every number in every array of ``tree`` is finite."""
    return all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def open_manager(folder: Path) -> ocp.CheckpointManager:
    """Returns a manager that keeps the newest checkpoint in ``folder`` and saves in background.

    An older checkpoint is deleted only once the newer one is complete, so an interrupted save
    leaves the older one; what it left half written is cleaned up when the folder is next opened.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState) -> bool:
    """Saves ``state`` under its step, unless a number in it is not finite.

    Returns:
        Whether it was saved; False, and the checkpoint before is kept, if it is not finite.

    Raises:
        CheckpointError: If there is a checkpoint of this or a later step.
    """
    arrays = state_arrays(state)
    if not all_finite(arrays):
        return False
    step = int(arrays["step"])
    content = ocp.args.Composite(
        state=ocp.args.StandardSave(arrays),
        checksum=ocp.args.JsonSave({"sha256": checksum(arrays)}),
    )
    if not manager.save(step, args=content):
        raise CheckpointError(
            f"`step` (={step}) was not saved in {manager.directory}: its latest checkpoint is of "
            f"step {manager.latest_step()}. Save to a new folder."
        )
    return True


def restore(folder: Path, template: TrainState) -> TrainState:
    """Returns the newest checkpoint in ``folder``.

    Args:
        folder: Folder that a manager of ``open_manager`` wrote.
        template: State of the same network and optimizer, for structure, shapes and dtypes; that
            of ``jax.eval_shape`` is enough.

    Raises:
        CheckpointError: If there is none, it cannot be read, or its checksum differs.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} has no checkpoint: the folder does not exist.")
    expected = jax.eval_shape(_arrays, template)
    with open_manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"{folder} has no complete checkpoint; repeat the run.")
        content = ocp.args.Composite(
            state=ocp.args.StandardRestore(expected), checksum=ocp.args.JsonRestore()
        )
        try:
            restored = manager.restore(step, args=content)
        except Exception as error:  # Damage shows as any of a dozen exception types.
            cause = str(error.__cause__ or error).splitlines()[0]
            raise CheckpointError(
                f"checkpoint {folder / str(step)} cannot be read: {cause[:200]}. Restore the "
                "folder from a copy, or repeat the run."
            ) from error
    arrays = jax.tree.map(np.asarray, restored["state"])
    if checksum(arrays) != restored["checksum"]["sha256"]:
        raise CheckpointError(
            f"checkpoint {folder / str(step)} is damaged: its SHA-256 is not the one recorded when "
            "it was saved. Restore the folder from a copy, or repeat the run."
        )
    return template.replace(
        step=arrays["step"],
        params=arrays["params"],
        batch_stats=arrays["batch_stats"],
        opt_state=arrays["opt_state"],
        key=jax.random.wrap_key_data(arrays["key"]),
    )
