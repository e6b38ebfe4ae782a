"""Command line: ``python -m experiments pod_check --help``."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments.analysis.compare.record import to_json
from experiments.benchmarks.networks import Recipe, make_recipe, with_changes
from experiments.benchmarks.pod_check.compile import Compiled, compile_step
from experiments.benchmarks.pod_check.record import Pair, pod_record, pod_tables
from experiments.benchmarks.pod_check.topology import slice_of, tpu_devices
from experiments.common.checks import positive
from experiments.common.cli import command_line, run_cli
from experiments.common.console import CommandConsole
from experiments.common.files import write_text
from experiments.common.output_folder import check_new, options_of
from experiments.config.methods import check_norm
from experiments.config.parallel import DevicesConfig, Precision, Statistics
from experiments.training.parallel.batch_size import check_batch_size

PROG = "python -m experiments pod_check"


@dataclasses.dataclass(frozen=True)
class PodCheckConfig:
    """Compile the training step for a TPU pod, with a norm and with BatchNorm, and compare.

    It is the step of train, in the recipe of the network (100 epochs of ImageNet for
    resnet50 and resnet101, CIFAR-10 for resnet110), compiled by the TPU compiler: that needs
    `pip install 'jax[tpu]'` and JAX_PLATFORMS=cpu, but no TPU. A network takes some minutes, and
    each slice of --scaling a third of that. Exit status 3: a target was missed.
    """

    topology: str = "v5e:16x16"
    """The slice: generation and shape."""
    slices: int = 1
    """Number of such slices, joined by the data-centre network."""
    model: Literal["resnet50", "resnet101", "resnet110"] = "resnet50"
    """The network, and with it the data."""
    norm: str = "ubn"
    """The norm to compare."""
    baseline: str = "bn"
    """What to compare it with."""
    batch_size: int = 4096
    """Images per update, over all devices."""
    parallel: Literal["jit", "shard_map"] = "jit"
    """How the step is spread over the devices."""
    statistics: Statistics = "synchronised"
    """Batch statistics: see train --help."""
    statistics_group: int | None = None
    """Number of devices in a group, for --statistics grouped."""
    precision: Precision | None = None
    """Precision of activations. Default: bfloat16 for ImageNet, float32 for CIFAR."""
    accumulate: int = 1
    """Micro-batches per update."""
    scaling: tuple[int, ...] = (8, 64, 256, 512, 1024)
    """Numbers of chips at which to compare collectives, with as many images per chip; --scaling
    without a number: none. v5e and v6e beyond 256 chips are several slices of 256."""
    scaling_effort: float = -1.0
    """How hard the compiler works for --scaling, from -1 to 1 (0: as always). Whether collectives
    are the same is checked at --topology, if --scaling has it; over several slices they are not.
    Nor is memory: -1 leaves on-chip memory unused, so that all arrays are counted."""
    json: Path | None = None
    """File to write the numbers to, with versions; it must not exist."""

    def __post_init__(self) -> None:
        """Check the values that need no compiler."""
        check_norm(self.norm)
        check_norm(self.baseline)
        positive(slices=self.slices, batch_size=self.batch_size, accumulate=self.accumulate)
        DevicesConfig(statistics=self.statistics, statistics_group=self.statistics_group)
        for chips in self.scaling:
            slice_of(self.generation, chips)
        if not -1 <= self.scaling_effort <= 1:
            raise ValueError(f"`scaling_effort` (={self.scaling_effort}) must be from -1 to 1.")

    @property
    def generation(self) -> str:
        """TPU generation."""
        return self.topology.partition(":")[0]


def run(options: PodCheckConfig, console: Console, command: str = PROG) -> bool:
    """Compile, print the tables, store the numbers.

    Args:
        options: The options.
        console: Takes what is printed.
        command: For the record: the command that repeats it.

    Returns:
        Whether all targets are met.
    """
    check_new("json", options.json)
    devices = tpu_devices(options.topology, options.slices)
    check_batch_size(options.batch_size, len(devices), options.accumulate)
    per_device = options.batch_size // len(devices)
    name = _name(options.topology, options.slices)
    base, norm = _compare(options, name, devices, options.batch_size, console)
    title = (
        f"{options.model} on {name}: {len(devices)} devices ({devices[0].device_kind}), "
        f"{options.batch_size} images, {per_device} per device, {options.parallel}, "
        f"{_recipe(options, options.batch_size).config.devices.precision}"
    )
    shown = options_of(options, "json")
    pairs: list[Pair] = []

    def store() -> dict[str, Any]:
        """Write the rows compiled so far, so that a later failure does not lose them."""
        record = pod_record(shown, command, title, (name, base, norm), pairs)
        if options.json is not None:
            write_text(options.json, to_json(record))
        return record

    record = store()
    for table in pod_tables(record).values():
        console.print(table)
    effort = options.scaling_effort
    for chips in options.scaling:
        topology, slices = slice_of(options.generation, chips)
        other = _name(topology, slices)
        if other == name and not effort:
            pairs.append((name, base, norm))
        else:
            devices = tpu_devices(topology, slices)
            size = per_device * len(devices)
            pairs.append((other, *_compare(options, other, devices, size, console, effort)))
        record = store()
    if pairs:
        console.print(pod_tables(record)["scaling"])
    return all(target["met"] for target in record["pod_check"]["targets"])


def _compare(
    options: PodCheckConfig,
    name: str,
    devices: list[Any],
    batch_size: int,
    console: Console,
    effort: float = 0.0,
) -> tuple[Compiled, Compiled]:
    recipe = _recipe(options, batch_size)
    compiled = []
    for norm in (options.baseline, options.norm):
        with _progress(console, f"compiling {options.model} with {norm} for {name}"):
            compiled.append(compile_step(recipe, norm, devices, effort))
    return compiled[0], compiled[1]


def _recipe(options: PodCheckConfig, batch_size: int) -> Recipe:
    recipe = make_recipe(options.model, batch_size)
    return with_changes(
        recipe,
        accumulate=options.accumulate,
        parallel=options.parallel,
        statistics=options.statistics,
        statistics_group=options.statistics_group,
        precision=options.precision or recipe.config.devices.precision,
    )


def _name(topology: str, slices: int) -> str:
    return topology if slices == 1 else f"{slices} x {topology}"


@contextmanager
def _progress(console: Console, label: str) -> Iterator[None]:
    """Show how long it has taken so far, where there is a terminal; elsewhere what is done."""
    if not console.is_terminal:
        console.print(label, soft_wrap=True)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(label, total=None)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    missed = []
    command = command_line(PROG, arguments, "--json")
    status = run_cli(
        PROG,
        PodCheckConfig,
        arguments,
        lambda options: missed.append(not run(options, CommandConsole(), command)),
    )
    return 3 if any(missed) else status


if __name__ == "__main__":
    sys.exit(main())
