"""Command line of the benchmarks: ``python -m experiments.bench {layer,tpu,data} --help``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.bench import data, forms, layer, timing, tpu
from experiments.cli import run_cli
from experiments.record import versions


@dataclasses.dataclass(frozen=True)
class Layer:
    """Time the layer against nn.BatchNorm, a naive layer and a x + b, on this device.

    All four take turns in one process; given are medians of the ratios of neighbours. Then, for
    each, the reads and writes of full arrays in the compiled program, and what reverse mode keeps
    for each convolution-normalization-ReLU.
    """

    seconds: float = 4.0
    """How long to measure each line, in seconds."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    """Dtypes of inputs and outputs."""
    passes: tuple[str, ...] = tuple(forms.PASSES)
    """What to time: forward, forward+backward."""
    json: Path | None = None
    """File to write the numbers to, with versions and hardware; it must not exist."""


@dataclasses.dataclass(frozen=True)
class Tpu:
    """Compile conv-norm-relu-conv-norm-relu-conv for a TPU slice, and compare the programs.

    Needs the TPU compiler (`pip install 'jax[tpu]'`) but no TPU; run it with JAX_PLATFORMS=cpu.
    Bytes accessed count every branch of a conditional that could run; guarded collectives are
    those in such branches.
    """

    topology: str = "v5e:16x16"
    """Name of the slice: generation and shape."""
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    """Dtypes of the activations."""
    sizes: tuple[tuple[int, int], ...] = ((28, 128), (14, 256))
    """Pairs of image height and channels."""
    per_device: int = 64
    """Images per device."""
    json: Path | None = None
    """File to write the numbers to, with versions; it must not exist."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Time each input pipeline against the training step that it feeds, on this device.

    The digits and CIFAR are in memory, and augmented on the device; ImageNet's JPEG files
    (synthetic here, of the true size and number of bytes) are read from records, decoded and
    cropped by threads. The step is that of a pre-activation ResNet with unitized batch
    normalization; or an accelerator is imitated, which takes time but none of the processor's.
    Needs the data extra.
    """

    cases: tuple[str, ...] = data.CASES
    """Which: digits, cifar, imagenet."""
    seconds: float = 5.0
    """How long to measure each number, in seconds; there are four for each case."""
    accelerators: tuple[float, ...] = (500.0, 1000.0)
    """Images per second of accelerators to imitate, for ImageNet."""
    json: Path | None = None
    """File to write the numbers to, with versions and hardware; it must not exist."""


def _check_new(path: Path | None) -> None:
    if path is not None and path.exists():
        raise ValueError(f"--json (={str(path)!r}) exists, and results are never overwritten.")


def _store(path: Path | None, rows: Any) -> None:
    if path is not None:
        with path.open("x") as file:
            json.dump({"command": sys.argv[1:], "versions": versions(), "rows": rows}, file)


def _console() -> Console:
    """A console that breaks no line of a table; the tables are Markdown."""
    return Console(width=None if sys.stdout.isatty() else 200)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def run_layer(options: Layer) -> None:
    """Measure, print the tables and store the numbers."""
    console = _console()
    if not timing.keep_freed_pages():
        console.print("note: cannot keep freed memory mapped here; ratios are nearer to 1.")
    cases = [
        (shape, dtype, passes)
        for dtype in options.dtypes
        for passes in options.passes
        for shape in layer.SHAPES
    ]
    work = track(cases, "measuring", console=console, transient=True)
    rows = [layer.measure(*case, options.seconds) for case in work]
    device = jax.devices()[0]
    others = list(forms.FORMS)[1:]
    table = _table(
        f"time against nn.BatchNorm (median, quartiles) on {device.device_kind}",
        *("shape", "dtype", "pass", "BatchNorm, ms", "rounds", *others),
    )
    for row in rows:
        cells = [
            f"{row.ratios[name][0]:.2f} ({row.ratios[name][1]:.2f}-{row.ratios[name][2]:.2f})"
            for name in others
        ]
        shape = "x".join(map(str, row.shape))
        table.add_row(shape, row.dtype, row.passes, f"{row.base_ms:.2f}", str(row.rounds), *cells)
    for dtype in options.dtypes:
        for passes in options.passes:
            means = [f"{layer.geometric_mean(rows, name, passes, dtype):.2f}" for name in others]
            table.add_row("geometric mean, rank 4", dtype, passes, "", "", *means)
    console.print(table)

    moved = _table(
        "reads and writes of full arrays in the compiled program",
        *("shape", "dtype", "pass", *forms.FORMS),
    )
    for row in rows:
        cells = [f"{reads}R {writes}W" for reads, writes in row.traffic.values()]
        moved.add_row("x".join(map(str, row.shape)), row.dtype, row.passes, *cells)
    console.print(moved)

    kept = {dtype: layer.kept_memory(dtype) for dtype in options.dtypes}
    memory = _table(
        "kept for the backward pass, in units of x, for each conv-norm-relu",
        *("dtype", "BatchNorm", "UnitizedBatchNorm"),
    )
    for dtype, sizes in kept.items():
        memory.add_row(dtype, *(f"{size:.2f}" for size in sizes.values()))
    console.print(memory)
    _store(options.json, {"time": [dataclasses.asdict(row) for row in rows], "kept": kept})


def run_tpu(options: Tpu) -> None:
    """Compile, print the table and store the numbers."""
    console = _console()
    cases = [
        (options.topology, name, dtype, height, channels, options.per_device)
        for dtype in options.dtypes
        for height, channels in options.sizes
        for name in ("BatchNorm", "UnitizedBatchNorm")
    ]
    work = track(cases, "compiling", console=console, transient=True)
    rows = [tpu.compile_for(*case) for case in work]
    table = _table(
        f"compiled for {options.topology}, per device",
        *("images", "dtype", "layer", "bytes accessed, MB", "against BatchNorm", "collectives"),
        *("guarded", "peak memory, MB", "compiled in, s"),
    )
    for i, row in enumerate(rows):
        base = rows[i - i % 2]
        table.add_row(
            f"{row.height}x{row.height}x{row.channels}",
            row.dtype,
            row.layer,
            f"{row.bytes_accessed / 1e6:.1f}",
            f"{row.bytes_accessed / base.bytes_accessed:.3f}",
            ", ".join(f"{count} {kind}" for kind, count in row.collectives.items()),
            str(row.guarded_collectives),
            f"{row.peak_bytes / 1e6:.1f}",
            f"{row.compile_s:.1f}",
        )
    console.print(table)
    _store(options.json, [dataclasses.asdict(row) for row in rows])


def run_data(options: Data) -> None:
    """Measure, print the table and store the numbers."""
    console = _console()
    work = track(options.cases, "measuring", console=console, transient=True)
    rows = [
        row for case in work for row in data.run_case(case, options.seconds, options.accelerators)
    ]
    table = _table(
        f"images per second on {jax.devices()[0].device_kind}",
        *("pipeline", "image, batch", "step", "pipeline alone", "step alone"),
        *("pipeline / step", "training", "step waits, %"),
    )
    for row in rows:
        table.add_row(
            row.pipeline,
            row.images,
            row.step,
            f"{row.pipeline_rate:,.0f}",
            f"{row.step_rate:,.0f}",
            f"{row.pipeline_rate / row.step_rate:.1f}",
            f"{row.both_rate:,.0f}",
            f"{100 * row.waiting:.1f}",
        )
    console.print(table)
    _store(options.json, [dataclasses.asdict(row) for row in rows])


def _run(options: Layer | Tpu | Data) -> None:
    _check_new(options.json)
    if isinstance(options, Layer):
        run_layer(options)
    elif isinstance(options, Tpu):
        run_tpu(options)
    else:
        run_data(options)


def main(arguments: list[str] | None = None) -> int:
    """Run a benchmark; returns the exit status."""
    subcommands = (
        Annotated[Layer, tyro.conf.subcommand("layer")]
        | Annotated[Tpu, tyro.conf.subcommand("tpu")]
        | Annotated[Data, tyro.conf.subcommand("data")]
    )
    return run_cli("python -m experiments.bench", subcommands, arguments, _run)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
