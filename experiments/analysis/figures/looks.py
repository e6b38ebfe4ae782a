"""How each method looks in every figure: its colour, marker and dash."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.config.methods import NORMS

# The first four are of Okabe and Ito; the others were searched for: in normal and in each of three
# dichromatic visions every pair differs by more than 14 (CIE 1976), and each stands out from white.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#332288", "#6b5000", "#661111", "#ff1166"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
HOMES = len(COLOURS)  # The first norms of the table have their look in every run and comparison.


class Look(NamedTuple):
    """How a method looks; no two of up to 16 methods share colour and dash, or colour and marker.

    Attributes:
        colour: Of lines, marks and bands.
        marker: Of points.
        dash: Of lines.
    """

    colour: str
    marker: str
    dash: str

    @property
    def line(self) -> dict[str, Any]:
        """Options of ``Axes.plot`` for a line."""
        return {"color": self.colour, "linestyle": self.dash}

    @property
    def point(self) -> dict[str, Any]:
        """Options of ``Axes.plot`` for points."""
        return {"color": self.colour, "marker": self.marker, "linestyle": "none"}

    def marked(self, count: int, most: int = 8) -> dict[str, Any]:
        """Options of ``Axes.plot`` for a line of ``count`` points, about ``most`` of them marked.

        Args:
            count: Points of the line.
            most: Marks.
        """
        return self.line | {"marker": self.marker, "markevery": max(1, -(-count // most))}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return the look of each method, in the order of ``names``.

    BatchNorm is always the first look, UnitizedBatchNorm the second, and so on for the first norms
    of the table; what has no place there, or shares its norm with one before it, takes a free one.

    Args:
        names: Of all methods of the run or comparison, so that all its figures agree.

    Example:
        >>> looks(["ubn", "bn", "kalman"])["bn"].colour == COLOURS[0]
        True
    """
    homes: dict[str, int] = {}
    for name in names:
        norm = name.split(" ")[0]
        if norm in NORMS[:HOMES] and NORMS.index(norm) not in homes.values():
            homes[name] = NORMS.index(norm)
    free = (slot for slot in itertools.count() if slot not in homes.values())
    return {name: _look(homes[name] if name in homes else next(free)) for name in names}


def _look(slot: int) -> Look:
    turn, place = divmod(slot, len(COLOURS))
    marker = MARKERS[(place + 3 * turn) % len(MARKERS)]
    return Look(COLOURS[place], marker, DASHES[turn % len(DASHES)])


def dodge(index: int, count: int, width: float = 0.7) -> float:
    """Return how far from its layer's place the mark of a method stands, so that none overlap.

    Args:
        index: Of the method.
        count: Of the methods.
        width: Of all together; below 1, or they would stand at the next layer's.

    Example:
        >>> [round(dodge(i, 2), 2) for i in range(2)]
        [-0.17, 0.17]
    """
    return width * ((index + 0.5) / count - 0.5)
