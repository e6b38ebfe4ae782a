"""Options of devices, processes and precision."""

import dataclasses
from typing import Any, Literal, get_args

from experiments.common.checks import check_choice, positive

Parallel = Literal["auto", "jit", "pmap", "shard_map"]
Statistics = Literal["synchronised", "grouped", "per_device"]
Precision = Literal["float32", "bfloat16"]
Distributed = Literal["auto", "none"]


@dataclasses.dataclass(frozen=True)
class DevicesConfig:
    """Devices, processes and precision."""

    parallel: Parallel = "auto"
    """How the step is spread over the devices: jit (over a mesh if there are several), pmap or
    shard_map; all give the same result. auto is jit."""
    num_devices: int | None = None
    """Number of devices to use, of one process. Default: all."""
    statistics: Statistics = "synchronised"
    """Batch statistics of bn, ubn: synchronised (over the whole batch), grouped (over groups of
    neighbouring devices, see --statistics-group) or per_device ("ghost batches")."""
    statistics_group: int | None = None
    """Number of devices in a group, for --statistics grouped; must divide their number."""
    precision: Precision = "float32"
    """Precision of activations; parameters, their updates and statistics are float32 always."""
    distributed: Distributed = "auto"
    """auto: join the other processes, if a TPU pod, Slurm, Open MPI or the options below say that
    there are any; none: this process is alone."""
    coordinator_address: str | None = None
    """HOST:PORT of process 0, where neither a TPU pod, Slurm nor Open MPI tells it."""
    num_processes: int | None = None
    """Number of processes; each is started with the same command but for --process-id."""
    process_id: int | None = None
    """Number of this process, from 0."""
    initialization_timeout: float = 120.0
    """How long processes wait for one another at the start, in seconds."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name, choices in (
            ("parallel", Parallel),
            ("statistics", Statistics),
            ("precision", Precision),
            ("distributed", Distributed),
        ):
            check_choice(name, getattr(self, name), get_args(choices))
        if self.num_devices is not None and self.num_devices < 1:
            raise ValueError(f"`num_devices` (={self.num_devices}) must be a positive number.")
        if (self.statistics == "grouped") != (self.statistics_group is not None):
            raise ValueError(
                f"`statistics_group` (={self.statistics_group}) must be given if, and only if, "
                f"`statistics` (={self.statistics!r}) is 'grouped'."
            )
        positive(initialization_timeout=self.initialization_timeout)
        if self.statistics_group is not None and self.statistics_group < 1:
            raise ValueError(
                f"`statistics_group` (={self.statistics_group}) must be a positive number."
            )
        self._check_processes()

    def _check_processes(self) -> None:
        given = [
            f"`{name}` (={value})" for name, value in self.processes.items() if value is not None
        ]
        if self.distributed == "none" and given:
            raise ValueError(
                f"{given[0]} must not be given with `distributed` 'none'; leave one of them out."
            )
        if given and len(given) < len(self.processes):
            raise ValueError(
                f"{given[0]} alone does not start several processes: give all of "
                f"{', '.join(f'`{name}`' for name in self.processes)}, or none of them where a TPU "
                "pod, Slurm or Open MPI tells them."
            )
        address, count, index = self.processes.values()
        if not given:
            return
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError(
                f"`coordinator_address` (={address!r}) must be HOST:PORT, a free port of the "
                "machine of process 0."
            )
        if not (count >= 1 and 0 <= index < count):
            raise ValueError(
                f"`process_id` (={index}) must be at least 0 and less than `num_processes` "
                f"(={count})."
            )

    @property
    def processes(self) -> dict[str, Any]:
        """The options that say where the other processes are."""
        names = ("coordinator_address", "num_processes", "process_id")
        return {name: getattr(self, name) for name in names}
