"""Command line of the benchmarks: ``python -m experiments.bench BENCHMARK --help``."""

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

from experiments.bench import data, forms, layer, probe, seeds, timing, tpu
from experiments.bench.options import Data, Layer, Probe, Seeds, Tpu
from experiments.cli import run_cli
from experiments.provenance import versions


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


def run_probe(options: Probe) -> None:
    """Measure, print the tables and store the numbers."""
    console = _console()
    cases = [
        (n, d, case)
        for n in options.samples
        for d in options.dimensions
        for case in ("drift", "independent")
    ]
    work = track(cases, "measuring", console=console, transient=True)
    rows = [probe.measure_distance(*case, options.drift, options.seconds) for case in work]
    others = [name for name in rows[0].ms if name != "ours"]
    table = _table(
        "distance of two samples, cost matrix given, ms (and time against ours, quartiles) on "
        + jax.devices()[0].device_kind,
        *("n", "d", "samples", "cost matrix", "ours", *others, "our gap"),
    )
    for row in rows:
        cells = ["not within 1 %" if row.ms[name] is None else "" for name in others]
        for i, name in enumerate(others):
            if row.ms[name] is not None:
                median, low, high = row.ratios[name]
                cells[i] = f"{row.ms[name]:.2f} ({median:.1f}, {low:.1f}-{high:.1f})"
        table.add_row(
            *(str(row.n), str(row.d), row.case, f"{row.cost_ms:.2f}", f"{row.ms['ours']:.2f}"),
            *cells,
            f"{row.gap:.1e}",
        )
    console.print(table)
    networks: dict[str, dict[str, Any]] = {
        "ResNet-8, digits 8x8, batch 64": {
            "blocks": (1, 1, 1),
            "shape": (64, 8, 8, 1),
            "every": 10,
        },
        "ResNet-18, 32x32, batch 128": {
            "blocks": (3, 3, 3),
            "shape": (128, 32, 32, 3),
            "every": 100,
        },
    }
    names = track(networks, "measuring", console=console, transient=True)
    shares = [probe.measure_share(name, images=options.images, **networks[name]) for name in names]
    table = _table(
        "what probing adds to training",
        *("network", "step, ms", "images probed", "probe, ms", "every", "share of the updates"),
    )
    for share in shares:
        table.add_row(
            *(share.network, f"{share.step_ms:.1f}", str(share.images), f"{share.probe_ms:.1f}"),
            *(f"{share.every} updates", f"{100 * share.share:.1f} %"),
        )
    console.print(table)
    stored: dict[str, list[Any]] = {"distance": rows, "share": shares}
    _store(options.json, {k: [dataclasses.asdict(r) for r in v] for k, v in stored.items()})


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


def run_seeds(options: Seeds) -> None:
    """Measure, print the table and store the numbers."""
    console = _console()
    cases = [
        (norm, size, count)
        for norm in options.norms
        for size in options.batch_sizes
        for count in options.seeds
    ]
    work = track(cases, "measuring", console=console, transient=True)
    rows = [seeds.measure(*case, options.seconds) for case in work]
    table = _table(
        f"an update of all seeds of the digits network on {jax.devices()[0].device_kind}",
        *("method", "batch", "seeds", "one after another, ms", "together, ms", "together / one by"),
    )
    for row in rows:
        median, low, high = row.ratio
        table.add_row(
            *(row.norm, str(row.batch_size), str(row.seeds), f"{row.alone_ms:.2f}"),
            *(f"{row.together_ms:.2f}", f"{median:.2f} ({low:.2f}-{high:.2f})"),
        )
    console.print(table)
    _store(options.json, [dataclasses.asdict(row) for row in rows])


def _run(options: Layer | Tpu | Probe | Data | Seeds) -> None:
    _check_new(options.json)
    if isinstance(options, Layer):
        run_layer(options)
    elif isinstance(options, Tpu):
        run_tpu(options)
    elif isinstance(options, Probe):
        run_probe(options)
    elif isinstance(options, Data):
        run_data(options)
    else:
        run_seeds(options)


def main(arguments: list[str] | None = None) -> int:
    """Run a benchmark; returns the exit status."""
    subcommands = (
        Annotated[Layer, tyro.conf.subcommand("layer")]
        | Annotated[Tpu, tyro.conf.subcommand("tpu")]
        | Annotated[Probe, tyro.conf.subcommand("probe")]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Seeds, tyro.conf.subcommand("seeds")]
    )
    return run_cli("python -m experiments.bench", subcommands, arguments, _run)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
