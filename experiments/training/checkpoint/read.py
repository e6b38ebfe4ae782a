"""Reading checkpoints: every array is checked, and put where the template has its own."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.common.reasons import drop_logs, ignore_closed_loop, reason
from experiments.training.checkpoint.content import (
    DESCRIPTION,
    Checkpoint,
    CheckpointError,
    arrays_of,
    checksums,
    json_checksum,
)
from experiments.training.steps import TrainState


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in ``folder``, in order; read none of them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def read_about(folder: Path, step: int) -> dict[str, Any]:
    """Return what a checkpoint says of itself: all of ``Checkpoint`` but its arrays.

    Raises:
        CheckpointError: If it cannot be read, or is not what was saved.
    """
    about = _read(folder, step, {"about": ocp.args.JsonRestore()})["about"]
    expected = about.pop("sha256", None) if isinstance(about, dict) else None
    if expected is None or expected != json_checksum(about):
        raise _damaged(folder, step, "the SHA-256 of its description", folder / str(step) / "about")
    return about


def restore(
    folder: Path, template: TrainState, step: int | None = None, arrays: Any = None
) -> Checkpoint:
    """Return one checkpoint, every array of it checked.

    Args:
        folder: Folder of ``Checkpoints``.
        template: State of the same network and optimizer. Each array restored gets the shape and
            dtype of its own there, and is put on the same devices in the same way, whatever those
            were that saved it; with the shapes alone, of ``jax.eval_shape``, it stays on the host.
        step: Which one; None for the newest.
        arrays: Templates of ``Checkpoint.arrays``, by name; those saved without are left out.

    Raises:
        CheckpointError: If there is none, it cannot be read, or it is not what was saved.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} has no checkpoint: there is no such folder")
    steps = saved_steps(folder)
    if step is None and not steps:
        raise CheckpointError(f"{folder} has no complete checkpoint")
    step = steps[-1] if step is None else step
    about = read_about(folder, step)
    wanted = {"state": _arrays_like(template)}
    wanted |= {name: tree for name, tree in (arrays or {}).items() if name in about["arrays"]}
    templates = {
        name: ocp.args.StandardRestore(jax.tree.map(_host_template, tree))
        for name, tree in wanted.items()
    }
    found = dict(_read(folder, step, templates).items())
    for name, digest in checksums(found).items():
        if digest != about["checksums"].get(name):
            raise _damaged(folder, step, f"the SHA-256 of {name}", folder / str(step))
    found = jax.tree.map(_place, found, wanted)
    state = found.pop("state")
    key = jax.random.wrap_key_data(state.pop("key"))
    described = {name: about[name] for name in DESCRIPTION}
    return Checkpoint(template.replace(**state, key=key), arrays=found, **described)


def _arrays_like(template: TrainState) -> dict[str, Any]:
    concrete = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(template))
    return arrays_of(template) if concrete else jax.eval_shape(arrays_of, template)


def _host_template(leaf: Any) -> np.ndarray:
    # A view of one number: no memory. Orbax gives numpy arrays for numpy arrays.
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _place(array: np.ndarray, like: Any) -> Any:
    # Not `device_put`: every process has the whole array and gives its own part.
    if not isinstance(like, jax.Array):
        return array
    if not like.committed:
        # On no device in particular, or whatever takes it with others would be compiled again.
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])


def _read(folder: Path, step: int, items: dict[str, Any]) -> Any:
    drop_logs()
    path = folder.resolve() / str(step)
    # Of several processes each reads by itself: orbax would have them wait for each other.
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(index, {index}, f"read_{index}")
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    try:
        handler = ocp.CompositeCheckpointHandler(composite_options=options)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(path, args=ocp.args.Composite(**items))
    except Exception as error:  # Damage shows as any of a dozen types.
        ignore_closed_loop()
        raise CheckpointError(
            f"the checkpoint of update {step}, {folder / str(step)}, cannot be read: "
            f"{reason(error)}"
        ) from error


def _damaged(folder: Path, step: int, what: str, where: Path) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint of update {step} is damaged: {what}, in {where}, is not the one recorded "
        "when it was saved"
    )
