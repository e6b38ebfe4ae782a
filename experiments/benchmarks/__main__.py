"""Command line of the benchmarks: ``python -m experiments bench BENCHMARK --help``."""

import dataclasses
import json
import sys
from functools import partial
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import track

from experiments.analysis.compare.record import to_json
from experiments.benchmarks import (
    augment,
    compiling,
    data,
    distance,
    eager,
    first_call,
    layer,
    measures,
    seeds,
    share,
    step,
    tpu,
)
from experiments.benchmarks.gpu.cases import GROUPS, NORMS, Case
from experiments.benchmarks.gpu.rows import compiled_rows, measured_rows
from experiments.benchmarks.options import (
    Augment,
    Compile,
    Data,
    Eager,
    Gpu,
    Layer,
    Measures,
    Probe,
    Seeds,
    Step,
    Stored,
    Tpu,
)
from experiments.benchmarks.tables import bench_tables
from experiments.common import timing
from experiments.common.cli import command_line, run_cli
from experiments.common.console import CommandConsole
from experiments.common.files import write_text
from experiments.common.output_folder import check_new
from experiments.common.provenance import versions
from experiments.config.experiment import ProbeConfig, TrainConfig

PROG = "python -m experiments bench"


def run_layer(options: Layer, console: Console) -> dict[str, Any]:
    """Return the rows of ``bench layer``."""
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
    return {
        "time": rows,
        "kept": {dtype: layer.kept_memory(dtype) for dtype in options.dtypes},
        "copy_rate": layer.copy_rate(options.seconds),
    }


def run_tpu(options: Tpu, console: Console) -> list[Any]:
    """Return the rows of ``bench tpu``."""
    images = [(options.per_device, height, height, width) for height, width in options.images]
    cases = [
        (options.topology, name, dtype, shape)
        for dtype in options.dtypes
        for shape in (*images, *options.rows)
        for name in ("BatchNorm", "UnitizedBatchNorm")
    ]
    work = track(cases, "compiling", console=console, transient=True)
    return [tpu.compile_for(*case) for case in work]


def run_gpu(options: Gpu, console: Console) -> list[Any]:
    """Return the rows of ``bench gpu``."""
    cases = [
        Case(*case, devices, norm)
        for devices in options.devices
        for group in options.cases
        for case in GROUPS[group]
        for norm in NORMS
    ]
    if options.measure:
        work = track(cases[:: len(NORMS)], "measuring", console=console, transient=True)
        return [row for case in work for row in measured_rows(case, options.seconds)]
    compiled = compiled_rows(cases, options.chip)
    return list(track(compiled, "compiling", len(cases), console=console, transient=True))


def run_probe(options: Probe, console: Console) -> dict[str, Any]:
    """Return the rows of ``bench probe``."""
    cases = [
        (n, d, case)
        for n in options.samples
        for d in options.dimensions
        for case in ("drift", "independent")
    ]
    work = track(cases, "measuring", console=console, transient=True)
    rows = [distance.measure(*case, options.drift, options.seconds) for case in work]
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
    shares = [share.measure(name, images=options.images, **networks[name]) for name in names]
    config = TrainConfig(probe=ProbeConfig(images=options.images))
    runs = []
    for norm in config.norms:
        show = partial(track, description=f"training {norm}", console=console, transient=True)
        runs.append(share.measure_run(norm, config, options.seconds, show))
    console.print("compiling ResNet-50 and its probe")
    first = first_call.measure(options.image_size, options.first_images)
    return {"distance": rows, "share": shares, "run": runs, "first": first}


def run_data(options: Data, console: Console) -> list[Any]:
    """Return the rows of ``bench data``."""
    work = track(options.cases, "measuring", console=console, transient=True)
    return [
        row for case in work for row in data.run_case(case, options.seconds, options.accelerators)
    ]


def run_seeds(options: Seeds, console: Console) -> list[Any]:
    """Return the rows of ``bench seeds``."""
    cases = [
        (norm, size, count)
        for norm in options.norms
        for size in options.batch_sizes
        for count in options.seeds
    ]
    work = track(cases, "measuring", console=console, transient=True)
    return [seeds.measure(*case, options.seconds) for case in work]


def run_step(options: Step, console: Console) -> list[Any]:
    """Return the rows of ``bench step``."""
    cases = [(name, dtype) for dtype in options.precisions for name in options.networks]
    work = track(cases, "measuring", console=console, transient=True)
    return [
        step.measure(name, options.norms, dtype, options.batch_size, options.seconds)
        for name, dtype in work
    ]


def run_eager(options: Eager, console: Console) -> list[Any]:
    """Return the rows of ``bench eager``."""
    cases = [(shape, call) for shape in eager.SHAPES for call in eager.CALLS]
    work = track(cases, "measuring", console=console, transient=True)
    return [eager.measure(*case, options.seconds) for case in work]


def run_compile(options: Compile, console: Console) -> list[Any]:
    """Return the rows of ``bench compile``."""
    work = track(options.networks, "compiling", console=console, transient=True)
    of = (options.norms, options.batch_size, options.rounds)
    return [compiling.measure(name, *of) for name in work]


def run_measures(options: Measures, console: Console) -> list[Any]:
    """Return the rows of ``bench measures``."""
    cases = [(name, images) for name in options.networks for images in options.images]
    work = track(cases, "measuring", console=console, transient=True)
    return [
        measures.measure(name, options.measures, options.batch_size, images, options.seconds)
        for name, images in work
    ]


def run_augment(options: Augment, console: Console) -> list[Any]:
    """Return the rows of ``bench augment``."""
    work = track(options.networks, "measuring", console=console, transient=True)
    return [augment.measure(name, options.batch_size, options.seconds) for name in work]


def _run(options: Stored, command: str) -> None:
    """Measure, print the tables and store the numbers."""
    check_new("json", options.json)
    console = CommandConsole()
    benchmarks: dict[type, tuple[str, Any]] = {
        Layer: ("layer", run_layer),
        Tpu: ("tpu", run_tpu),
        Gpu: ("gpu", run_gpu),
        Probe: ("probe", run_probe),
        Data: ("data", run_data),
        Seeds: ("seeds", run_seeds),
        Step: ("step", run_step),
        Eager: ("eager", run_eager),
        Compile: ("compile", run_compile),
        Measures: ("measures", run_measures),
        Augment: ("augment", run_augment),
    }
    name, run = benchmarks[type(options)]
    found = {"command": command, "versions": versions(), "rows": run(options, console)}
    stored = json.loads(json.dumps({"benchmark": name} | found, default=dataclasses.asdict))
    for table in bench_tables(stored).values():
        console.print(table)
    if options.json is not None:
        write_text(options.json, to_json(stored))


def main(arguments: list[str] | None = None) -> int:
    """Run a benchmark; return the exit status."""
    subcommands = (
        Annotated[Layer, tyro.conf.subcommand("layer")]
        | Annotated[Tpu, tyro.conf.subcommand("tpu")]
        | Annotated[Gpu, tyro.conf.subcommand("gpu")]
        | Annotated[Probe, tyro.conf.subcommand("probe")]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Seeds, tyro.conf.subcommand("seeds")]
        | Annotated[Step, tyro.conf.subcommand("step")]
        | Annotated[Eager, tyro.conf.subcommand("eager")]
        | Annotated[Compile, tyro.conf.subcommand("compile")]
        | Annotated[Measures, tyro.conf.subcommand("measures")]
        | Annotated[Augment, tyro.conf.subcommand("augment")]
    )
    return run_cli(
        PROG,
        subcommands,  # type: ignore[arg-type]
        arguments,
        lambda options: _run(options, command_line(PROG, arguments, "--json")),
    )


if __name__ == "__main__":
    sys.exit(main())
