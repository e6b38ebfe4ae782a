"""A training job from end to end: every norm with every seed, tables, figures and report."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.analysis import report
from experiments.analysis.page import write_report
from experiments.analysis.results import read_results
from experiments.common import files, provenance
from experiments.common.errors import Preempted
from experiments.common.progress import Progress
from experiments.common.storage import check_room, folder_bytes, needed_bytes, storage_errors
from experiments.config import experiment as configs
from experiments.config.difference import identity
from experiments.data import Dataset, load_dataset
from experiments.training import distributed
from experiments.training.loop import train_seeds
from experiments.training.mirror import Mirror, MirrorError
from experiments.training.overview import overview
from experiments.training.preemption import Preemption
from experiments.training.probing import compile_probe, with_probe
from experiments.training.profiling import Profile
from experiments.training.program import Program, build_program, compile_program, updates_per_epoch
from experiments.training.run import Run
from experiments.training.run_folder import check_data, check_mesh, locked, open_run_dir
from experiments.training.summary import summarize


def train(
    config: configs.TrainConfig,
    console: Console,
    *,
    figures: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Train every norm with every seed.

    Args:
        config: What to train.
        console: Where messages and the final table go.
        figures: Whether to draw figures and report, which experiments.analysis.page can do later.
        progress: Tells how far it is. Default: one on the console.

    Returns:
        The run folder: ``config.json``, ``versions.json``, ``sessions.jsonl`` (the versions at each
        start), ``data.json``, ``summary.json``, ``curves.png``, ``ics.png``, ``report.html``, and
        for each norm and seed a folder of ``train.jsonl``, ``eval.jsonl``, ``ics.jsonl``,
        ``tensorboard/`` and ``checkpoints/``.

    Raises:
        ValueError: If a value of the configuration is not possible, or the run folder exists and is
            not to be resumed, or cannot be.
        StorageError: If the run folder cannot be written or has not enough room.
        NonFiniteLossError: If a loss is not finite.
        Preempted: If it was asked to stop (by a signal, or the time is up); everything is saved.
    """
    if progress is None:
        with Progress(console, config.log_seconds) as progress:
            return train(config, console, figures=figures, progress=progress)
    start = time.perf_counter()
    progress.phase(f"Loading {config.data.dataset}")
    dataset = load_dataset(config.data)
    for note in dataset.notes if distributed.is_writer() else ():
        console.print(note, soft_wrap=True)
    programs = [
        with_probe(build_program(config, norm, dataset), config.probe, dataset)
        for norm in config.norms
    ]
    versions = _versions(programs)
    shared = {"versions": _shared(versions), "dataset": identity(dataset.record())}
    distributed.check_same({**configs.to_dict(config), **shared})
    run_dir, resumed, mirror = _open_run_dir(config)
    advice = "What was saved in it is complete: {way_out}, then continue with --resume auto."
    with ExitStack() as stack:
        distributed.on_writer(lambda: stack.enter_context(locked(run_dir)))
        stack.enter_context(storage_errors(f"run folder {run_dir} cannot be written", advice))
        left = None
        if config.max_seconds is not None:
            left = config.max_seconds - (time.perf_counter() - start)
        copy = _copying(mirror, run_dir, console)
        preemption = stack.enter_context(Preemption(config.grace_seconds, left, config.on_usr1))
        if distributed.on_writer(lambda: resumed and (run_dir / "summary.json").exists()):
            console.print(f"The run in {run_dir} is finished.", soft_wrap=True)
        else:
            images = dataset.example(config.optim.batch_size)["image"]
            states = [jax.eval_shape(p.init, jax.random.key(0), images) for p in programs]
            distributed.on_writer(lambda: _check_room(config, programs, states, run_dir))
            sessions = distributed.on_writer(
                lambda: _begin(config, dataset, run_dir, versions, console)
            )
            console.print(overview(programs, states))
            compiled = _compile(config, programs, dataset, console, progress)
            with Profile(
                run_dir / "profile", config.profile if distributed.is_writer() else 0
            ) as p:
                runs = _train_seeds(
                    config, compiled, dataset, run_dir, preemption, console, progress, p, copy
                )
            progress.phase("Writing the report")
            _tell_bad_images(dataset, console)
            if distributed.is_writer():
                files.write_json(run_dir / "data.json", dataset.record())
                summary = {
                    "data": dataset.name,
                    "target_accuracy": config.target_accuracy,
                    "seconds": time.perf_counter() - start,
                    "sessions": sessions,
                    "results": [summarize(run, config.target_accuracy) for run in runs],
                }
                # Where it is, the run is finished; what follows is made of what is on disk.
                files.write_json(run_dir / "summary.json", summary)
        if not distributed.is_writer():
            return run_dir
        results = read_results(run_dir)
        page = run_dir / "report.html"
        if figures and not page.exists():
            page = write_report(results)
        if mirror is not None:
            mirror.push(run_dir)
    report.print_results(results, updates_per_epoch(config, dataset), console)
    if page.exists():
        console.print(f"Report: {page}", soft_wrap=True)
    console.print(f"Check with: python -m experiments evaluate {run_dir}", soft_wrap=True)
    return run_dir


def _open_run_dir(config: configs.TrainConfig) -> tuple[Path, bool, Mirror | None]:
    """With the mirror, on the process that writes it."""
    mirrors: list[Mirror] = []

    def open_it() -> tuple[str, bool]:
        mirrors.extend([Mirror(config.mirror)] if config.mirror is not None else [])
        run_dir, resumed = open_run_dir(config, *mirrors)
        return str(run_dir), resumed

    name, resumed = distributed.on_writer(open_it)
    distributed.check_shared(Path(name))
    return Path(name), resumed, mirrors[0] if mirrors else None


def _copying(mirror: Mirror | None, run_dir: Path, console: Console) -> Callable[[], None] | None:
    """Return what copies the run folder; what cannot be copied now may be later."""
    if mirror is None:
        return None

    def copy() -> None:
        try:
            mirror.push(run_dir)
        except MirrorError as error:
            console.print(f"Warning: {error} The next checkpoint tries again.", soft_wrap=True)

    return copy


def _versions(programs: list[Program]) -> dict[str, Any]:
    """With the devices that are used, as groups that share batch statistics."""
    groups, members = programs[0].train_step.transform.mesh.devices.shape
    return {**provenance.versions(), "processes": jax.process_count(), "mesh": [groups, members]}


def _shared(versions: dict[str, Any]) -> dict[str, Any]:
    """Return the versions that all processes must share: neither the time nor host names."""
    own = ("time", "platform", "cpus", "cpu_model")
    return {name: value for name, value in versions.items() if name not in own}


def _check_room(
    config: configs.TrainConfig, programs: list[Program], states: list[Any], run_dir: Path
) -> None:
    updates = programs[0].updates
    needed = needed_bytes(states, len(config.seeds), config.keep_checkpoints, updates)
    check_room(run_dir, max(0, needed - folder_bytes(run_dir)))


def _begin(
    config: configs.TrainConfig,
    dataset: Dataset,
    run_dir: Path,
    versions: dict[str, Any],
    console: Console,
) -> int:
    """Record what is run with what; return how many times it was started by now."""
    if (run_dir / "config.json").exists():
        check_data(
            run_dir,
            dataset.record(),
            "Give the same data to resume it, or another --run-dir for a run of its own.",
        )
        before = files.read_dict(run_dir / "versions.json")
        check_mesh(config, run_dir, before.get("mesh"), versions["mesh"])
        for change in provenance.changes(before, versions):
            console.print(f"Warning: {change}: numbers may differ in their last digits.")
        console.print(f"Continuing {run_dir}", soft_wrap=True)
    else:
        # The configuration last: where it is, all the rest is.
        files.write_json(run_dir / "versions.json", versions)
        files.write_json(run_dir / "data.json", dataset.record())
        files.write_json(run_dir / "config.json", configs.to_dict(config))
        console.print(f"Writing to {run_dir}", soft_wrap=True)
    _tell_bad_images(dataset, console)
    with (run_dir / "sessions.jsonl").open("a") as file:
        file.write(json.dumps(versions) + "\n")
    return (run_dir / "sessions.jsonl").read_bytes().count(b"\n")


def _compile(
    config: configs.TrainConfig,
    programs: list[Program],
    dataset: Dataset,
    console: Console,
    progress: Progress,
) -> list[Program]:
    compiled = []
    together = len(config.seeds) if config.seeds_together else 1
    for number, program in enumerate(programs, 1):
        progress.phase(f"Compiling {number} of {len(programs)}: {program.norm}")
        began = time.perf_counter()
        compiled.append(compile_program(program, dataset, config.optim.batch_size, together))
        seconds = time.perf_counter() - began
        console.print(f"Compiled the network with {program.norm} in {seconds:.1f} s")
        began = time.perf_counter()
        images = dataset.example(config.optim.batch_size)["image"]
        compiled[-1] = compile_probe(compiled[-1], images)
        if program.probe is not None:
            seconds = time.perf_counter() - began
            console.print(f"Compiled the probe of its shift in {seconds:.1f} s")
        elif config.probe.every:
            console.print(f"{program.norm} has no normalization layer: it is not probed")
    return compiled


def _train_seeds(
    config: configs.TrainConfig,
    programs: list[Program],
    dataset: Dataset,
    run_dir: Path,
    preemption: Preemption,
    console: Console,
    progress: Progress,
    profile: Profile,
    on_saved: Callable[[], None] | None,
) -> list[Run]:
    runs: list[Run] = []
    progress.begin_training(len(config.seeds) * sum(program.updates for program in programs))

    def say(message: str) -> None:
        console.print(message, soft_wrap=True)

    try:
        for seeds in [config.seeds] if config.seeds_together else [(s,) for s in config.seeds]:
            label = f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            finished = train_seeds(
                *(config, programs, dataset, seeds, run_dir, preemption, progress, profile),
                on_message=say,
                on_saved=on_saved,
            )
            accuracies = [f"{r.program.norm} {r.eval_rows[-1]['accuracy']:.2%}" for r in finished]
            console.print(f"{label}: test accuracy {', '.join(accuracies)}")
            runs.extend(finished)
    except Preempted:
        say(
            f"Stopped, as asked; everything is saved. Continue with: --run-dir {run_dir} "
            "--resume auto and the same options."
        )
        raise
    return runs


def _tell_bad_images(dataset: Dataset, console: Console) -> None:
    if count := len(dataset.bad.reasons()):
        console.print(f"Left out {count} images that cannot be used: see data.json.")


def run(config: configs.TrainConfig, console: Console, progress: Progress) -> None:
    """Join the other processes, if there are any, and train."""
    joined = distributed.initialize(config.devices)
    console.quiet = console.quiet or not distributed.is_writer()
    try:
        train(config, console, progress=progress)
    except Preempted:  # All processes are; after other errors they would wait for each other.
        if joined:
            distributed.leave()
        raise
    if joined:
        distributed.leave()
