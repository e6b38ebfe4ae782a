"""Compares two run folders: everything but measured times must be equal, bit by bit."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.faults.events import read_scalars
from experiments.common.files import read_json, read_rows
from experiments.config import experiment as configs
from experiments.data import load_dataset
from experiments.training import checkpoint
from experiments.training.program import build_program
from experiments.training.run import run_folder

# Measured times: different in every run, and not compared, like the number of processes.
TIMES = frozenset({"ms_per_step", "seconds", "train_seconds", "probe_seconds"})
NOT_COMPARED = TIMES | {"sessions"}


class Check(NamedTuple):
    """One thing that was compared.

    Attributes:
        name: What it is.
        size: How many numbers, rows or files were compared.
        differences: What differs, one line each; empty if all is equal.
    """

    name: str
    size: int
    differences: list[str]


def compare_jobs(one: Path, other: Path) -> list[Check]:
    """Compare all that two finished training jobs of one configuration left.

    Args:
        one: Run folder; the differences call what it has "expected".
        other: The other run folder.

    Returns:
        One check for each kind of content.
    """
    config = configs.from_dict(read_json(one / "config.json"))
    dataset = load_dataset(config.data)
    checks: dict[str, Check] = {}
    for norm in config.norms:
        program = build_program(config, norm, dataset)
        images = dataset.example(config.optim.batch_size)["image"]
        template = jax.eval_shape(program.init, jax.random.key(0), images)
        for seed in config.seeds:
            a, b = (run_folder(job, norm, seed) for job in (one, other))
            for check in compare_runs(a, b, template):
                before = checks.get(check.name, Check(check.name, 0, []))
                where = f"{norm}-seed{seed}: "
                checks[check.name] = Check(
                    check.name,
                    before.size + check.size,
                    before.differences + [where + text for text in check.differences],
                )
    return [*checks.values(), *_compare_json(one, other), *_compare_figures(one, other)]


def compare_runs(one: Path, other: Path, template: Any) -> list[Check]:
    """Compare the folders of two runs.

    Args:
        one: Folder of one norm and seed.
        other: The other one.
        template: Shapes of their states, see ``checkpoint.restore``.
    """
    states = _compare_states(one, other, template)
    return [*states, *_compare_rows(one, other), _compare_events(one, other)]


def _compare_states(one: Path, other: Path, template: Any) -> list[Check]:
    states = [
        checkpoint.state_arrays(checkpoint.restore(folder / "checkpoints", template).state)
        for folder in (one, other)
    ]
    checks = []
    for name in states[0]:
        pairs = zip(
            jax.tree_util.tree_leaves_with_path(states[0][name]),
            jax.tree.leaves(states[1][name]),
            strict=True,
        )
        count, differences = 0, []
        for (path, expected), found in pairs:
            count += expected.size
            # Bytes, not numbers: 0 and -0 are different, too.
            if expected.tobytes() != found.tobytes():
                error = np.max(np.abs(expected.astype(np.float64) - found.astype(np.float64)))
                differences.append(f"{jax.tree_util.keystr(path)} differs by up to {error:.3g}")
        checks.append(Check(f"final {name}", count, differences))
    return checks


def _compare_rows(one: Path, other: Path) -> list[Check]:
    names = sorted({path.name for folder in (one, other) for path in folder.glob("*.jsonl")})
    return [_compare_lines(one / name, other / name) for name in names]


def _compare_lines(one: Path, other: Path) -> Check:
    rows = [[_without_times(row) for row in read_rows(path)] for path in (one, other)]
    differences = []
    for n, (expected, found) in enumerate(itertools.zip_longest(*rows), start=1):
        if expected != found:
            differences.append(f"line {n} of {one.name}: {found} instead of {expected}")
    # In every file, a row is of one step and at most one layer.
    for (step, layer), count in Counter((r["step"], r.get("layer")) for r in rows[1]).items():
        if count > 1:
            what = f"step {step}" + (f", layer {layer}" if layer else "")
            differences.append(f"{what} is {count} times in {one.name}")
    return Check(f"rows of {one.name}", len(rows[0]), differences)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(v) for name, v in value.items() if name not in NOT_COMPARED}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _compare_events(one: Path, other: Path) -> Check:
    counts = [Counter(_comparable_scalars(folder / "tensorboard")) for folder in (one, other)]
    missing, extra = counts[0] - counts[1], counts[1] - counts[0]
    differences = [f"{tag} of step {step} is missing" for tag, step, _ in missing]
    differences += [f"{tag} of step {step} is there again or changed" for tag, step, _ in extra]
    return Check("TensorBoard scalars", counts[0].total(), differences)


def _comparable_scalars(folder: Path) -> list[tuple[str, int, float]]:
    return [s for s in read_scalars(folder) if s[0].rsplit("/", 1)[-1] not in TIMES]


def _compare_json(one: Path, other: Path) -> list[Check]:
    checks = []
    for name in ("data.json", "summary.json"):
        texts = [
            json.dumps(_without_times(read_json(job / name)), sort_keys=True)
            for job in (one, other)
        ]
        differences = [] if texts[0] == texts[1] else [f"{texts[1]} instead of {texts[0]}"]
        checks.append(Check(name, 1, differences))
    return checks


def _compare_figures(one: Path, other: Path) -> list[Check]:
    """Return only the figures of a page: it has times in it, and its numbers are in the rows."""
    checks = []
    for path in sorted(one.glob("*.png")):
        contents = [path.read_bytes(), (other / path.name).read_bytes()]
        same = contents[0] == contents[1]
        differences = [] if same else [f"{path.name} differs"]
        checks.append(Check(f"{path.name}, bytes", len(contents[0]), differences))
    return checks
