"""The collectives in a compiled program: how often, and how many bytes, in one execution."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COLLECTIVE = re.compile(rf"({'|'.join(KINDS)})(-start)?")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(calls|body|condition|to_apply|branch_computations|true_computation|false_computation|"
    r"called_computations|async_execution_thread_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"?(\d+)"?\}')


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
        kind: One of ``KINDS``.
        bytes: Bytes of one device's array: the larger of operand and result.
        times: How often it runs in one execution of the program.
        guarded: Whether it is in a branch that need not run.
    """

    kind: str
    bytes: int
    times: int
    guarded: bool


def collectives(program: str) -> list[Collective]:
    """Return the collectives of a compiled program, in the order of its text.

    Loops count as often as they run (a loop of unknown length once), and what is in a branch of a
    conditional is marked as guarded.

    Args:
        program: The optimized program, ``compiled.as_text()``.

    Raises:
        ValueError: If the text has no entry computation.
    """
    bodies, entry = _computations(program)
    found: list[Collective] = []

    def visit(name: str, times: int, guarded: bool) -> None:
        shapes: dict[str, str] = {}
        for line in bodies[name]:
            match = _INSTRUCTION.match(line)
            if match is None:
                continue
            result, shape, operation, rest = match.groups()
            shapes[result] = shape
            collective = _COLLECTIVE.fullmatch(operation)
            if collective:
                size = _moved(shape, rest, shapes, started=collective[2] is not None)
                found.append(Collective(collective[1], size, times, guarded))
                continue
            trips = _TRIPS.search(rest)
            inner = times * int(trips[1]) if operation == "while" and trips else times
            for _, called in _CALLED.findall(rest):
                for other in re.findall(r"[\w.\-]+", called):
                    if other in bodies:
                        visit(other, inner, guarded or operation == "conditional")

    visit(entry, 1, False)
    return found


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in program.splitlines():
        header = _HEADER.match(line)
        if header:
            current = bodies.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    if not entry:
        raise ValueError("`program` has no ENTRY computation; give `compiled.as_text()`.")
    return bodies, entry


def _moved(shape: str, rest: str, shapes: dict[str, str], started: bool) -> int:
    operands = rest.split(")", 1)[0]
    given = sum(_bytes(shapes.get(name, "")) for name in re.findall(r"%([\w.\-]+)", operands))
    result = _bytes(shape)
    # A started collective returns its operand beside the result; an all-reduce that was started
    # returns the result alone.
    if started and result > given:
        result -= given
    return max(given, result)


def _bytes(shape: str) -> int:
    """Bytes of the arrays of a (tuple) shape as the program writes it."""
    total = 0.0
    for dtype, dimensions in _SHAPE.findall(shape):
        bits = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        total += bits / 8 * math.prod(int(n) for n in dimensions.split(",") if n)
    return int(total)


def count(found: Iterable[Collective]) -> int:
    """Return the number of collectives that run in every execution."""
    return sum(c.times for c in found if not c.guarded)


def total_bytes(found: Iterable[Collective]) -> int:
    """Bytes of the collectives that run in every execution."""
    return sum(c.times * c.bytes for c in found if not c.guarded)
