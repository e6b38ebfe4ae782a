"""The tables of ``experiments.pod_check``, and whether its targets are met."""

import collections
from collections.abc import Iterable
from typing import NamedTuple

from rich import box
from rich.table import Table

from experiments.pod_check.collectives import Collective, count, total_bytes
from experiments.pod_check.compile import Compiled

# Upper ends of the classes of sizes, bytes, and what they are called.
SIZES = ((4096, "up to 4 KiB"), (65536, "to 64 KiB"), (1 << 20, "to 1 MiB"), (None, "over 1 MiB"))


class Target(NamedTuple):
    """A target: what it is about, the number or ratio found, the limit, whether it is met."""

    what: str
    found: str
    limit: str
    met: bool


def targets(base: Compiled, norm: Compiled) -> list[Target]:
    """Returns the targets for the step with ``norm``, against that with ``base``."""

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
    """Returns the comparison of two compiled steps, per device."""
    table = _table(title, "per device", base.norm, norm.norm, f"{norm.norm} / {base.norm}")

    def row(name: str, a: float, b: float, scale: float = 1.0, digits: int = 1) -> None:
        ratio = f"{b / a:.3f}" if a else "-"
        table.add_row(name, f"{a / scale:,.{digits}f}", f"{b / scale:,.{digits}f}", ratio)

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
    return table


def collective_table(base: Compiled, norm: Compiled) -> Table:
    """Returns the number of collectives, and their bytes, by kind and size."""
    table = _table(
        "collectives of a step, by kind and size",
        *("kind", "size"),
        *(f"{step.norm}, {what}" for step in (base, norm) for what in ("number", "kB")),
    )
    rows = [_by_size(base.collectives), _by_size(norm.collectives)]
    for key in dict.fromkeys(k for step in rows for k in sorted(step)):
        cells = [step.get(key, (0, 0)) for step in rows]
        kind, size = key
        table.add_row(
            kind,
            SIZES[size][1],
            *(text for number, moved in cells for text in (str(number), f"{moved / 1e3:,.1f}")),
        )
    return table


def scaling_table(pairs: Iterable[tuple[str, Compiled, Compiled]]) -> Table:
    """Returns collectives and their bytes by number of devices.

    Args:
        pairs: Name of the slice, and the two compiled steps.
    """
    pairs = list(pairs)
    _, base, norm = pairs[0]
    table = _table(
        "scaling: as many images per device on every slice",
        *("slice", "devices", "batch"),
        *(f"collectives, {step.norm}" for step in (base, norm)),
        *(f"MB per device, {step.norm}" for step in (base, norm)),
        *("ratio", "compiled in, s"),
    )
    for name, base, norm in pairs:
        sizes = total_bytes(base.collectives), total_bytes(norm.collectives)
        table.add_row(
            name,
            str(base.devices),
            str(base.batch_size),
            *(str(count(step.collectives)) for step in (base, norm)),
            *(f"{size / 1e6:.2f}" for size in sizes),
            f"{sizes[1] / sizes[0]:.4f}" if sizes[0] else "-",
            f"{base.compile_s:.0f} + {norm.compile_s:.0f}",
        )
    return table


def target_table(found: Iterable[Target]) -> Table:
    """Returns the targets."""
    table = _table("targets", "of the step", "found", "target", "")
    for target in found:
        table.add_row(target.what, target.found, target.limit, "met" if target.met else "MISSED")
    return table


def _by_size(found: Iterable[Collective]) -> dict[tuple[str, int], tuple[int, int]]:
    totals: dict[tuple[str, int], tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for c in found:
        if not c.guarded:
            size = next(i for i, (end, _) in enumerate(SIZES) if end is None or c.bytes <= end)
            number, moved = totals[c.kind, size]
            totals[c.kind, size] = number + c.times, moved + c.times * c.bytes
    return dict(totals)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if i == 0 else "right")
    return table
