"""Several processes: joining them, one writer, and the same configuration everywhere."""

import hashlib
import json
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config.difference import flatten
from experiments.config.parallel import DevicesConfig
from experiments.training.parallel.rendezvous import meet

Result = TypeVar("Result")
# Options that may differ between processes: they do not change what is computed.
OWN_FIELDS = frozenset({"devices.process_id", "devices.coordinator_address"})


def initialize(config: DevicesConfig) -> bool:
    """Join the other processes, if there are any; before anything else touches a device.

    Where processes are is told by the options, or by what JAX finds out about a TPU pod, Slurm or
    Open MPI. A process that finds nothing is alone.

    Args:
        config: ``distributed`` and what belongs to it.

    Returns:
        Whether it has joined others, so that ``leave`` is due.

    Raises:
        ValueError: If the other processes cannot be reached.
    """
    if config.distributed == "none" or jax.distributed.is_initialized():
        return False
    address, count, index = config.processes.values()
    if address is not None:
        print(
            f"Process {index} of {count} meets the others at {address}, for "
            f"{config.initialization_timeout:g} s at most.",
            file=sys.stderr,
            flush=True,
        )
        meet(address, count, index, config.initialization_timeout)
    try:
        jax.distributed.initialize(
            **config.processes, initialization_timeout=math.ceil(config.initialization_timeout)
        )
    except ValueError as error:
        if "coordinator_address should be defined" in str(error):
            return False  # There is no cluster.
        raise ValueError(_unreachable(config, error)) from error
    except RuntimeError as error:
        if "must be called before any JAX" in str(error) and config.num_processes is None:
            return False  # Called from a program that uses JAX already, alone.
        raise ValueError(_unreachable(config, error)) from error
    return True


def leave() -> None:
    """Leave the other processes, once all have done their work; each of them must call it.

    Python's own way out can wait for ever, once processes have asked each other whether to stop.
    """
    jax.distributed.shutdown()


def _unreachable(config: DevicesConfig, error: Exception) -> str:
    return (
        f"the other processes could not be joined ({str(error).splitlines()[0]}). Start "
        f"{config.num_processes or 'all'} processes with the same command, or give --distributed "
        "none for one process alone."
    )


def is_writer() -> bool:
    """Return whether this process writes logs, tables and figures: process 0 does."""
    return jax.process_index() == 0


def check_same(values: dict[str, Any]) -> None:
    """Raise on every process unless all have the same ``values``.

    One exchange of a hash; only where hashes differ, the values themselves are exchanged.

    Args:
        values: Nested dictionaries of what JSON knows: the configuration, and versions. Entries
            in ``OWN_FIELDS`` may differ.

    Raises:
        ValueError: Naming the processes, their fields and values that differ from process 0's.
    """
    if jax.process_count() == 1:
        return
    flat = {name: v for name, v in flatten(values).items() if name not in OWN_FIELDS}
    text = json.dumps({"host": socket.gethostname(), "values": flat}).encode()
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).digest()
    header = np.frombuffer(digest + len(text).to_bytes(8, "little"), np.uint8)
    headers = np.asarray(multihost_utils.process_allgather(header))
    if (headers[:, :32] == headers[0, :32]).all():
        return
    lengths = [int.from_bytes(row[32:].tobytes(), "little") for row in headers]
    padded = np.frombuffer(text.ljust(max(lengths)), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    raise ValueError(difference([json.loads(row.tobytes()) for row in rows]))


def difference(processes: list[dict[str, Any]]) -> str:
    """Return what differs between processes, as an error says it.

    Args:
        processes: Of each its ``host`` and its flat ``values``.

    Example:
        >>> print(difference([{"host": "a", "values": {"optim.epochs": 3}},
        ...                   {"host": "b", "values": {"optim.epochs": 4}}]))
        processes were not given the same configuration: process 1 (b) has `optim.epochs` = 4, \
process 0 (a) 3. Start all of them with the same command, code and data.
    """
    first = processes[0]
    parts = []
    for index, other in enumerate(processes):
        names = [*first["values"], *(n for n in other["values"] if n not in first["values"])]
        for name in names:
            values = [_show(entry["values"], name) for entry in (other, first)]
            if values[0] != values[1]:
                parts.append(
                    f"process {index} ({other['host']}) has `{name}` = {values[0]}, process 0 "
                    f"({first['host']}) {values[1]}"
                )
    return (
        f"processes were not given the same configuration: {'; '.join(parts)}. Start all of them "
        "with the same command, code and data."
    )


def _show(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "nothing"


def on_writer(function: Callable[[], Result]) -> Result:
    """Return on every process what process 0 gets from ``function``, which it alone calls.

    Args:
        function: Works on files, for example; returns what JSON knows.

    Raises:
        ValueError: On every process, if ``function`` raised one: none is left waiting.
    """
    if jax.process_count() == 1:
        return function()
    message: dict[str, Any] = {}
    raised: ValueError | None = None
    if is_writer():
        try:
            message = {"result": function()}
        except ValueError as error:
            raised, message = error, {"error": str(error)}
    message = _broadcast(message)
    if raised is not None:
        raise raised
    if "error" in message:
        raise ValueError(message["error"])
    return cast(Result, message["result"])


def check_shared(folder: Path) -> None:
    """Raise unless every process sees a folder that process 0 has made.

    Raises:
        ValueError: On every process: checkpoints are written by all of them together.
    """
    if jax.process_count() == 1:
        return
    seen = np.asarray(multihost_utils.process_allgather(np.array(folder.is_dir())))
    if not seen.all():
        blind = ", ".join(str(i) for i in np.flatnonzero(~seen))
        raise ValueError(
            f"run folder {folder} of process 0 is not there for process {blind}: give a --run-dir "
            "on a file system that all processes share."
        )


def wait_for_all(name: str) -> None:
    """Return once every process has called it with the same ``name``."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _broadcast(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message of process 0."""
    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    if is_writer():
        padded[:] = text
    return dict(json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()))
