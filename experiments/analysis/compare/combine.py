"""Puts run folders together, if nothing but what is compared differs between them."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.analysis.comparison import SAME
from experiments.analysis.names import label, machine_name, used_options
from experiments.analysis.report import updates_to
from experiments.analysis.results import Results, RunRows, read_results
from experiments.config.difference import FREE_FIELDS, flatten, identity
from experiments.config.experiment import to_dict
from unitnorm_jax.ics import row_name

# Fields of the configuration that change no number of a run, are checked apart, or recomputed.
FREE = FREE_FIELDS | {"norms", "seeds", "target_accuracy"}
RECORD, NAME = "data.record", "data.named"  # What data.json says of the images; their name.
WAY_OUT = (
    "Repeat them alike; or, if that is what you compare, name it with --vary, and if it does not "
    "matter, with --allow (FIELD, or the group it is in, as in --vary optim)."
)


class Arm(NamedTuple):
    """A method with its options: one side of a comparison.

    Attributes:
        name: As tables and figures call it: "ubn unit=rms".
        norm: The method, as in ``--norms``.
        options: Fields of the configuration that the method uses or that are compared, by name.
        folders: Folder of the run of each seed.
    """

    name: str
    norm: str
    options: dict[str, Any]
    folders: dict[int, Path]


class Compared(NamedTuple):
    """Run folders put together.

    Attributes:
        results: As of one run folder, with the names of the arms for norms; the base is first.
        arms: What is compared; the base is first.
        folders: What every folder holds, in the order given.
        target: Accuracy for which the number of epochs is counted.
        notes: What a reader should know of how it was put together.
    """

    results: Results
    arms: list[Arm]
    folders: list[Results]
    target: float
    notes: list[str]


class _Run(NamedTuple):
    results: Results
    rows: RunRows
    summary: dict[str, Any]


def combine(
    folders: Sequence[Path],
    *,
    base: str | None = None,
    vary: Sequence[str] = (),
    allow: Sequence[str] = (),
    target: float | None = None,
) -> Compared:
    """Read finished run folders and put them together.

    What is compared are methods: norms, and the options that are their own. An option that two
    methods have in common (``norm.momentum``) is no part of a method: it must be equal, as all
    else of configuration, code, libraries, hardware and data.

    Args:
        folders: Run folders; each may hold several norms and seeds.
        base: Name of the arm with which all others are compared; default: the first.
        vary: Further fields that are compared: ``optim.learning_rate``; or a group: ``optim``.
        allow: Fields that may differ and do not matter: ``versions.git_commit``; ``data``: the
            images; ``seeds`` compares those that all have.
        target: Test accuracy, in (0, 1], for which epochs are counted; default: the runs' own.

    Raises:
        ValueError: If the runs differ in anything else; the message says in what.
    """
    if not folders:
        raise ValueError("`folders` (=[]) must be at least one run folder.")
    read = [read_results(Path(folder)) for folder in folders]
    notes = _check_alike(read, (*vary, "norm"), allow)
    runs, doubles = _gather(read, vary)
    notes += doubles
    arms = _name_arms(runs, vary)
    names = [arm.name for arm in arms]
    if base is not None:  # By either name: the option's, or what the tables show.
        base = {label(name): name for name in names}.get(base, base)
    if base is not None and base not in names:
        raise ValueError(f"`base` (={base!r}) must be one of what is compared: {', '.join(names)}.")
    first = names.index(base) if base is not None else 0
    order = [first, *(i for i in range(len(arms)) if i != first)]
    arms, keys = [arms[i] for i in order], [list(runs)[i] for i in order]
    _check_methods(arms, (*vary, *allow))
    seeds = _common_seeds(arms, "seeds" in allow)
    arms = [arm._replace(folders={seed: arm.folders[seed] for seed in seeds}) for arm in arms]
    if target is None:
        target = read[0].summary["target_accuracy"]
    if not 0 < target <= 1:
        raise ValueError(f"`target` (={target}) must be in (0, 1].")
    chosen = [(arm, runs[key][seed]) for arm, key in zip(arms, keys, strict=True) for seed in seeds]
    results = Results(
        folder=read[0].folder,
        config=dataclasses.replace(read[0].config, seeds=seeds),
        versions=read[0].versions,
        summary={
            **read[0].summary,
            "target_accuracy": target,
            "seconds": sum(results.summary["seconds"] for results in read),
            "results": [_renamed(run, arm, target) for arm, run in chosen],
        },
        runs=[run.rows._replace(norm=arm.name) for arm, run in chosen],
        names=tuple(arm.name for arm in arms),
    )
    return Compared(results, arms, read, target, notes + _other_layers(results))


def _within(field: str, groups: Sequence[str]) -> bool:
    return any(field == group or field.startswith(f"{group}.") for group in groups)


def _facts(results: Results) -> dict[str, Any]:
    """Return what must be equal: configuration, versions and data, by name."""
    versions = {k: v for k, v in results.versions.items() if k != "time"}
    config = flatten(to_dict(results.config))
    facts = {name: value for name, value in config.items() if name not in FREE}
    found = {"versions": versions, RECORD: identity(dict(results.data))}
    return facts | flatten(found) | {NAME: results.summary["data"]}


def _check_alike(read: Sequence[Results], vary: Sequence[str], allow: Sequence[str]) -> list[str]:
    """Return a note on each field that differs and may."""
    all_facts = [_facts(results) for results in read]
    known = list(dict.fromkeys(name for facts in all_facts for name in facts))
    for name in (*vary, *allow):
        if name != "seeds" and not any(_within(field, [name]) for field in known):
            raise ValueError(
                f"field (={name!r}) is unknown; choose from {', '.join(known)}, seeds, or a group."
            )
    lines, notes = [], []
    for field in known:
        # Records of earlier versions have fewer facts of the data; the name counts without them.
        either = [facts for facts in all_facts if field in facts or not _within(field, [RECORD])]
        if field == NAME and all(any(_within(f, [RECORD]) for f in facts) for facts in all_facts):
            continue
        values = [facts.get(field) for facts in either]
        if _within(field, vary) or all(value == values[0] for value in values):
            continue
        each = "; ".join(
            f"{facts.get(field)!r} in {results.folder}"
            for facts, results in zip(all_facts, read, strict=True)
        )
        if _within(field, allow):
            notes.append(f"The runs differ in `{field}`, as allowed: {each}.")
        else:
            lines.append(f"  `{field}`: {each}")
    if lines:
        raise ValueError("the runs differ in:\n" + "\n".join(lines) + f"\n{WAY_OUT}")
    return notes


Key = tuple[Any, ...]


def _options(results: Results, norm: str, vary: Sequence[str]) -> dict[str, Any]:
    flat = flatten(to_dict(results.config))
    varied = {k: v for k, v in flat.items() if k not in FREE and _within(k, vary)}
    varied = {k: v for k, v in varied.items() if not k.startswith("norm.")}
    return used_options(norm, results.config.norm) | varied


def _gather(
    read: Sequence[Results], vary: Sequence[str]
) -> tuple[dict[Key, dict[int, _Run]], list[str]]:
    """Return the runs of each arm by seed, arms in the order in which they come."""
    runs: dict[Key, dict[int, _Run]] = {}
    notes = []
    for results in read:
        for rows, summary in zip(results.runs, results.summary["results"], strict=True):
            options = _options(results, rows.norm, vary)
            key: Key = (rows.norm, *((k, repr(v)) for k, v in options.items()))
            of_arm = runs.setdefault(key, {})
            run = _Run(results, rows, summary)
            if rows.seed not in of_arm:
                of_arm[rows.seed] = run
                continue
            first = of_arm[rows.seed]
            same = first.summary["correct"] == summary["correct"]
            notes.append(
                f"{rows.norm}, seed {rows.seed}, is in {first.results.folder} and in "
                f"{results.folder}, with {'the same' if same else 'ANOTHER'} accuracy; the first "
                "is used."
            )
    return runs, notes


def _name_arms(runs: Mapping[Key, dict[int, _Run]], vary: Sequence[str]) -> list[Arm]:
    found = []
    for (norm, *_), of_arm in runs.items():
        results = next(iter(of_arm.values())).results
        folders = {seed: run.results.folder for seed, run in of_arm.items()}
        found.append(Arm("", str(norm), _options(results, str(norm), vary), folders))
    methods = [(arm.norm, arm.options) for arm in found]
    return [
        arm._replace(name=machine_name(method, methods))
        for arm, method in zip(found, methods, strict=True)
    ]


def _check_methods(arms: Sequence[Arm], may_differ: Sequence[str]) -> None:
    """Options that different methods share must be equal: they are no part of either."""
    lines = []
    for one, other in itertools.combinations(arms, 2):
        for field in one.options.keys() & other.options.keys() if one.norm != other.norm else ():
            values = one.options[field], other.options[field]
            if values[0] != values[1] and not _within(field, may_differ):
                lines.append(
                    f"  `{field}`: {values[0]!r} of {one.name}, {values[1]!r} of {other.name}"
                )
    if lines:
        raise ValueError(
            "the runs differ in more than the method:\n" + "\n".join(sorted(lines)) + f"\n{WAY_OUT}"
        )


def _common_seeds(arms: Sequence[Arm], allow: bool) -> tuple[int, ...]:
    common = [s for s in arms[0].folders if all(s in arm.folders for arm in arms)]
    missing = [arm for arm in arms if len(arm.folders) != len(common)]
    if not common or (missing and not allow):
        each = "; ".join(f"{arm.name}: {' '.join(map(str, arm.folders))}" for arm in arms)
        raise ValueError(
            f"the seeds are not the same, so that they cannot be paired: {each}. Train the missing "
            "ones, or compare those that all have with --allow seeds."
        )
    return tuple(common)


def _renamed(run: _Run, arm: Arm, target: float) -> dict[str, Any]:
    """Return a row of the summary, under the name of its arm."""
    updates = updates_to(run.rows.eval, target)
    return {**run.summary, "norm": arm.name, "updates_to_target": updates}


def _other_layers(results: Results) -> list[str]:
    """Return a note on every method some of whose layers cannot be compared with the base's."""
    probed = results.probed()
    sizes = [
        {row_name(row): tuple(row[name] for name in SAME) for rows in of.values() for row in rows}
        for of in map(results.ics, probed)
    ]
    notes = []
    for norm, mine in zip(probed[1:], sizes[1:], strict=True):
        every = sizes[0].keys() | mine.keys()
        other = [name for name in every if sizes[0].get(name) != mine.get(name)]
        if other:
            notes.append(
                f"{results.label(norm)} and {results.label(probed[0])}: {len(other)} of "
                f"{len(every)} layers are not compared, for only one has them, or their outputs "
                "differ in size or in how they were probed."
            )
    return notes


def by_arm(compared: Compared) -> Iterator[tuple[Arm, list[RunRows], list[dict[str, Any]]]]:
    """Yield every arm with its runs and their rows of the summary, in the order of the seeds."""
    for arm in compared.arms:
        pairs = zip(compared.results.runs, compared.results.summary["results"], strict=True)
        mine = [(run, row) for run, row in pairs if run.norm == arm.name]
        yield arm, [run for run, _ in mine], [row for _, row in mine]
