"""The tables of ``experiments.benchmarks.pod_check``, and whether its targets are met."""

import collections
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments.benchmarks.pod_check.collectives import Collective, count, total_bytes
from experiments.benchmarks.pod_check.compile import Compiled
from experiments.common.table import Column, Table

# Upper ends of the classes of sizes, bytes, and what they are called.
SIZES = ((4096, "up to 4 KiB"), (65536, "to 64 KiB"), (1 << 20, "to 1 MiB"), (None, "over 1 MiB"))


class Target(NamedTuple):
    """A target: what it is about, the number or ratio found, the limit, whether it is met."""

    what: str
    found: str
    limit: str
    met: bool


def targets(base: Compiled, norm: Compiled) -> list[Target]:
    """Return the targets for the step with ``norm``, against that with ``base``."""

    def ratio(what: str, a: float, b: float, limit: float) -> Target:
        value = a / b if b else float(a > 0) + 1.0
        return Target(what, f"{value:.4f}", f"at most {limit:g}", value <= limit)

    collectives = count(norm.collectives), count(base.collectives)
    moved = total_bytes(norm.collectives), total_bytes(base.collectives)
    return [
        Target(
            "collectives",
            f"{collectives[0]}",
            f"at most {collectives[1]}",
            collectives[0] <= collectives[1],
        ),
        ratio("bytes accessed", norm.bytes_accessed, base.bytes_accessed, 1.02),
        ratio("bytes of collectives", *moved, 1.02),
        ratio("memory allocated", norm.allocated_bytes, base.allocated_bytes, 1.0),
        ratio("memory, peak in use", norm.peak_bytes, base.peak_bytes, 1.0),
    ]


def main_table(title: str, base: Compiled, norm: Compiled) -> Table:
    """Return ``step``: the comparison of two compiled steps, per device."""
    rows: list[tuple[Any, ...]] = []

    def row(name: str, a: float, b: float, scale: float = 1.0, digits: int = 1) -> None:
        ratio = b / a if a else None
        rows.append((name, f"{a / scale:,.{digits}f}", f"{b / scale:,.{digits}f}", ratio))

    def counts(step: Compiled, guarded: bool) -> int:
        return sum(c.times for c in step.collectives if c.guarded == guarded)

    row("parameters", base.parameters, norm.parameters, digits=0)
    row("flops, 10^9", base.flops, norm.flops, 1e9)
    row("bytes accessed, MB", base.bytes_accessed, norm.bytes_accessed, 1e6)
    row("memory allocated, MB", base.allocated_bytes, norm.allocated_bytes, 1e6)
    row("memory, peak in use, MB", base.peak_bytes, norm.peak_bytes, 1e6)
    row("collectives", counts(base, False), counts(norm, False), digits=0)
    sizes = total_bytes(base.collectives), total_bytes(norm.collectives)
    row("bytes of collectives, MB", *sizes, 1e6, 2)
    row("collectives in branches not usually taken", counts(base, True), counts(norm, True), 1, 0)
    row("compiled in, s", base.compile_s, norm.compile_s)
    names = Column(base.norm), Column(norm.norm), Column(f"{norm.norm} / {base.norm}", "{:.3f}")
    return Table("step", title, "", (Column("per device"), *names), rows)


def collective_table(base: Compiled, norm: Compiled) -> Table:
    """Return ``collectives``: their number, and their bytes, by kind and size."""
    by_size = [_by_size(base.collectives), _by_size(norm.collectives)]
    rows = []
    for key in dict.fromkeys(k for step in by_size for k in sorted(step)):
        cells = [step.get(key, (0, 0)) for step in by_size]
        kind, size = key
        numbers = (value for number, moved in cells for value in (number, moved / 1e3))
        rows.append((kind, SIZES[size][1], *numbers))
    columns = (
        column
        for step in (base, norm)
        for column in (
            Column(f"{step.norm}, number", "{:.0f}"),
            Column(f"{step.norm}, kB", "{:,.1f}"),
        )
    )
    title = "Collectives of a step, by kind and size"
    return Table("collectives", title, "", (Column("kind"), Column("size"), *columns), rows)


def scaling_table(pairs: Iterable[tuple[str, Compiled, Compiled]]) -> Table:
    """Return ``scaling``: collectives, their bytes, and memory, by number of devices.

    Args:
        pairs: Name of the slice, and the two compiled steps.
    """
    pairs = list(pairs)
    rows = []
    for name, base, norm in pairs:
        sizes = total_bytes(base.collectives), total_bytes(norm.collectives)
        rows.append(
            (
                *(name, base.devices, base.batch_size),
                *(count(step.collectives) for step in (base, norm)),
                *(size / 1e6 for size in sizes),
                sizes[1] / sizes[0] if sizes[0] else None,
                *(step.peak_bytes / 1e6 for step in (base, norm)),
                f"{base.compile_s:.0f} + {norm.compile_s:.0f}",
            )
        )
    _, base, norm = pairs[0]
    columns = (
        *(Column("slice"), Column("devices", "{:.0f}"), Column("batch", "{:.0f}")),
        *(Column(f"collectives, {step.norm}", "{:.0f}") for step in (base, norm)),
        *(Column(f"MB per device, {step.norm}", "{:.2f}") for step in (base, norm)),
        Column("ratio", "{:.4f}"),
        *(Column(f"memory, peak in use, MB, {step.norm}", "{:,.1f}") for step in (base, norm)),
        Column("compiled in, s"),
    )
    title = "Scaling: as many images per device on every slice"
    return Table("scaling", title, "", columns, rows)


def target_table(found: Iterable[Target]) -> Table:
    """Return ``targets``."""
    rows = [(t.what, t.found, t.limit, "met" if t.met else "MISSED") for t in found]
    columns = (Column("of the step"), Column("found"), Column("target"), Column(""))
    return Table("targets", "Targets", "", columns, rows)


def _by_size(found: Iterable[Collective]) -> dict[tuple[str, int], tuple[int, int]]:
    totals: dict[tuple[str, int], tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for c in found:
        if not c.guarded:
            size = next(i for i, (end, _) in enumerate(SIZES) if end is None or c.bytes <= end)
            number, moved = totals[c.kind, size]
            totals[c.kind, size] = number + c.times, moved + c.times * c.bytes
    return dict(totals)
