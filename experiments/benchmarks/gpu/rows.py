"""Rows of ``bench gpu``: compiled in an environment of the compiler, or on a GPU and timed."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.gpu.cases import BASE, NORMS, STEPS, Built, Case, lower
from experiments.benchmarks.gpu.chip import describe, gpu_devices
from experiments.benchmarks.gpu.read import compile_and_read
from experiments.common import timing

ENVIRONMENT = Path(__file__).parents[3] / ".venv-gpu"


def make_row(case: Case, program: Any, compile_s: float) -> dict[str, Any]:
    """Return what is stored of a program."""
    return {
        **case._asdict(),
        "group": case.group,
        **dataclasses.asdict(program),
        "time_us": program.time_us,
        "host_round_trips": program.host_round_trips,
        "compile_s": compile_s,
    }


def compile_row(case: Case, chip: str) -> dict[str, Any]:
    """Compile a case for GPUs that need not be there."""
    bandwidth = describe(chip)["memory"]["bytes_per_second"]
    lowered, built = lower(case, gpu_devices(chip, case.devices))
    start = time.perf_counter()
    _, program = compile_and_read(lowered, built.size, bandwidth)
    return make_row(case, program, time.perf_counter() - start)


def compiled_rows(cases: Sequence[Case], chip: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of cases, each when it is compiled, by a process of the other environment.

    Raises:
        ValueError: If there is no such environment, or it cannot compile.
    """
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise ValueError(
            f"no GPU compiler: there is no {ENVIRONMENT.name}; `make gpu-compile` makes it."
        )
    describe(chip)
    command = [str(python), "-c", f"from {__name__} import serve; serve({chip!r})"]
    # JAX_PLATFORMS: without it the plugin looks for a driver, and stops.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        command,
        cwd=ENVIRONMENT.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(cases, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise ValueError(
            f"the compiler in {ENVIRONMENT.name} failed, see above; `make gpu-compile` after "
            f"removing {ENVIRONMENT.name} makes it again."
        )


def serve(chip: str) -> None:
    """Read cases from the standard input, and write a row for each of them."""
    for values in json.load(sys.stdin):
        case = Case(**dict(zip(Case._fields, values, strict=True)))
        case = case._replace(shape=tuple(case.shape))
        print(json.dumps(compile_row(case, chip)), flush=True)


def measured_rows(case: Case, seconds: float) -> list[dict[str, Any]]:
    """Compile a case with each normalization for the GPUs of this machine, and time them in turns.

    Raises:
        ValueError: If there are not as many GPUs.
    """
    devices = [device for device in jax.devices() if device.platform == "gpu"]
    if len(devices) < case.devices:
        raise ValueError(
            f"`measure` needs GPUs that JAX sees: {case.devices} of them, and there are "
            f"{len(devices)}; install jax[cuda13], or leave --measure out."
        )
    rows, calls = [], {}
    for norm in NORMS:
        one = case._replace(norm=norm)
        lowered, built = lower(one, devices[: case.devices])
        start = time.perf_counter()
        compiled, program = compile_and_read(lowered, built.size, bandwidth=np.inf)
        rows.append(make_row(one, program, time.perf_counter() - start))
        calls[norm] = caller(compiled, built, again=case.kind in STEPS)
    times = timing.interleaved(calls, seconds)
    for row in rows:
        row["measured_us"] = 1e6 * float(np.median(times[row["norm"]]))
        row["ratio"] = timing.ratio(times, row["norm"], BASE)
    return rows


def caller(compiled: Any, built: Built, again: bool) -> Any:
    """Return a function that runs a program; ``again``: on the state that it returned last."""
    shardings = compiled.input_shardings[0]
    same, split = (
        jax.device_put(tree, sharding)
        for tree, sharding in zip(built.arguments(), shardings, strict=True)
    )

    def call() -> Any:
        nonlocal same
        result = compiled(same, split)
        if again:
            same = result[0]
        return result

    return call
