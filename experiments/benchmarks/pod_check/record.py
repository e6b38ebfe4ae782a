"""The pod check as one small JSON, and the tables made of it: the terminal's and the pages'."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.benchmarks.pod_check.collectives import Collective
from experiments.benchmarks.pod_check.compile import Compiled
from experiments.benchmarks.pod_check.tables import (
    collective_table,
    main_table,
    scaling_table,
    target_table,
    targets,
)
from experiments.common.provenance import version, versions
from experiments.common.table import Table

Pair = tuple[str, Compiled, Compiled]


def pod_record(
    options: Mapping[str, Any],
    command: str,
    title: str,
    main: Pair,
    pairs: Iterable[Pair],
) -> dict[str, Any]:
    """Return the record of a pod check, ready for JSON.

    Args:
        options: Of the check.
        command: The command that repeats it.
        title: What was compiled for what.
        main: Name of the slice, and the two compiled steps, that of the baseline first.
        pairs: The same for other numbers of chips.

    Returns:
        ``command``, ``options``, ``versions`` (code, libraries, hardware; no TPU is part of it) and
        ``pod_check`` with the arguments above and the ``targets``. Collectives of one kind and size
        are one entry.
    """
    name, *steps = main
    return {
        "command": command,
        "options": dict(options),
        "versions": {**versions(), "libtpu": version("libtpu")},
        "pod_check": {
            "title": title,
            "slice": name,
            "steps": [_numbers(step) for step in steps],
            "targets": [target._asdict() for target in targets(*steps)],
            "scaling": [
                {"slice": name, "steps": [_numbers(step) for step in pair]} for name, *pair in pairs
            ],
        },
    }


def pod_tables(record: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a record by their keys: step, collectives, targets, scaling."""
    found = record["pod_check"]
    base, norm = map(_compiled, found["steps"])
    made = [
        main_table(found["title"], base, norm),
        collective_table(base, norm),
        target_table(targets(base, norm)),
    ]
    pairs = [(row["slice"], *map(_compiled, row["steps"])) for row in found["scaling"]]
    if pairs:
        scaling = scaling_table(pairs)
        found_there = [pair for name, *pair in pairs if name == found["slice"]]
        if effort := record["options"]["scaling_effort"]:
            same = [_alike(pair) == _alike((base, norm)) for pair in found_there]
            caption = f"compiled with effort {effort:g}"
            if same:
                other = "those" if all(same) else "NOT those"
                caption += f"; on {found['slice']}, collectives are {other} of effort 0"
            scaling = scaling._replace(caption=caption)
        made.append(scaling)
    return {table.key: table for table in made}


def _alike(steps: Iterable[Compiled]) -> list[dict[Collective, int]]:
    """Return how often each step runs which collective."""
    found = []
    for step in steps:
        times: Counter[Collective] = Counter()
        for collective in step.collectives:
            times[collective._replace(times=0)] += collective.times
        found.append(dict(times))
    return found


def _numbers(step: Compiled) -> dict[str, Any]:
    (alike,) = _alike([step])
    collectives = [kind._replace(times=times)._asdict() for kind, times in alike.items()]
    numbers = dataclasses.asdict(step) | {"compile_s": round(step.compile_s, 1)}
    return numbers | {"collectives": collectives}


def _compiled(numbers: Mapping[str, Any]) -> Compiled:
    collectives = tuple(Collective(**entry) for entry in numbers["collectives"])
    return Compiled(**{**numbers, "collectives": collectives})
