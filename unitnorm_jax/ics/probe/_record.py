"""The shift over a training run."""

import dataclasses
import json
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, SupportsIndex, TypeVar, runtime_checkable

import numpy as np

from unitnorm_jax.ics.probe._layer_info import LayerInfo
from unitnorm_jax.ics.probe._report import table


@runtime_checkable
class Report(Protocol):
    """What a measurement gives: an `ICSReport`, or one with more in its rows."""

    def rows(self, **more: Any) -> list[dict[str, Any]]:
        """Return a flat dictionary per layer."""
        ...


Measured = TypeVar("Measured", bound=Report)
MeasuredOut = TypeVar("MeasuredOut", bound=Report, covariant=True)


@runtime_checkable
class Probe(Protocol[MeasuredOut]):
    """What measures: an `ICSProbe`, or one that measures more."""

    def __call__(self, before: Any, after: Any, /) -> MeasuredOut:
        """Measure the shift between two states."""
        ...

    def keep(self, variables: Any) -> Any:
        """Return a copy of a state for a later call."""
        ...


class ICSRecord(Generic[Measured]):
    """Probe a training run every few updates and keep the rows.

    Call it once before the first update and after every one. At each step that is a positive
    multiple of `every` it measures ``W1(state at step - lag, state at step)``; lag = 1 is the
    shift of one update, lag = every against the state of the measurement before. It keeps one
    copy of the state at a time (`ICSProbe.keep`, for trainers donate theirs), taken `lag` updates
    before a measurement; all other calls cost one comparison. A measurement whose earlier state
    was not seen (after a restart in between) is left out.

    The arrays of a report come to the host when the next measurement is made, or the rows are
    asked for, so that training need not wait. (On CPUs JAX waits for a program that can call the
    host, as that of a probe with a host solver can.)

    Args:
        probe: Does the measuring: an `ICSProbe`.
        every: Updates between measurements, at least 1.
        lag: Updates between the two states of a measurement, 1 to `every`.

    Raises:
        ValueError: If `every` or `lag` is out of range.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.ics import ICSProbe
        >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> variables = model.init(jax.random.key(1), x)
        >>> record = ICSRecord(ICSProbe(model, x), every=2)
        >>> for step in range(5):
        ...     report = record(step, variables)
        ...     variables = jax.tree.map(lambda p: 1.1 * p, variables)
        >>> [(row["step"], row["lag"], row["layer"]) for row in record.rows()]
        [(2, 1, 'layers_1'), (4, 1, 'layers_1')]
    """

    def __init__(
        self, probe: Probe[Measured], every: SupportsIndex, lag: SupportsIndex = 1
    ) -> None:
        """Check the arguments."""
        every, lag = _integer("every", every), _integer("lag", lag)
        if every < 1 or not 1 <= lag <= every:
            raise ValueError(
                f"`every` (={every}) must be at least 1, and `lag` (={lag}) from 1 to `every`; "
                "lag = 1 is the shift of one update, lag = every that since the last measurement."
            )
        self._probe, self._every, self._lag = probe, every, lag
        self._kept: tuple[int, Any] | None = None
        self._pending: tuple[int, Measured] | None = None
        self._rows: list[dict[str, Any]] = []

    def __call__(self, step: SupportsIndex | float, variables: Any) -> Measured | None:
        """See the state after `step` updates; 0 is the initial one.

        Args:
            step: Updates made; any integer, also an array of one, as a trainer's state has it.
            variables: What the probe takes: a linen model's collections, an nnx model, ...

        Returns:
            The report, if this step is measured.

        Raises:
            ValueError: If `step` is no integer.
        """
        step, report = _integer("step", step), None
        if step % self._every == 0 and self._kept and self._kept[0] == step - self._lag:
            self._fetch()
            report = self._probe(self._kept[1], variables)
            self._pending = (step, report)
            self._kept = None
        if self._keeps(step):
            self._kept = (step, self._probe.keep(variables))
        return report

    def looks_at(self, step: int) -> bool:
        """Return whether it measures or keeps the state after `step` updates.

        For trainers that have to make the state first, say of that of several devices.
        """
        return self._keeps(step) or (self._kept is not None and step % self._every == 0)

    @property
    def kept(self) -> tuple[int, Any] | None:
        """The copy that is kept for the next measurement, and its step; None if there is none.

        With it in a checkpoint (as `unpack` gives it) and `resume`, no measurement is left out.
        """
        return self._kept

    def resume(self, step: int, variables: Any) -> None:
        """Keep the state after `step` updates, which a checkpoint had of `kept`."""
        self._kept = (step, self._probe.keep(variables))

    def take(self) -> list[dict[str, Any]]:
        """Return the `rows` that were not taken yet, and forget them: for a trainer's own files."""
        rows = self.rows()
        self._rows.clear()
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat dictionary per measurement and layer: step, lag, and `LayerICS.row`."""
        self._fetch()
        return [dict(row) for row in self._rows]

    def columns(self) -> dict[str, np.ndarray]:
        """Return the rows as columns: one numpy array per field, all of one length."""
        rows = self.rows()
        return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    def write(self, path: str | Path) -> None:
        """Write the rows as JSON lines; NaN and infinities as the strings "nan", "inf", "-inf"."""
        lines = (json.dumps(_plain(row), allow_nan=False) for row in self.rows())
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def __str__(self) -> str:
        """Return a table of the main columns."""
        return table(self.rows())

    def _keeps(self, step: int) -> bool:
        return (step + self._lag) % self._every == 0

    def _fetch(self) -> None:
        if self._pending is not None:
            step, report = self._pending
            self._rows.extend(report.rows(step=step, lag=self._lag))
            self._pending = None


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows that `ICSRecord.write` wrote, with NaN and infinities as numbers again.

    Args:
        path: Of the JSON lines.

    Returns:
        The rows.

    Raises:
        ValueError: If a line is not JSON.
    """
    rows = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no object with names")
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"line {number} of {path} is not JSON ({error}); restore the file from a copy, or "
                "repeat the run."
            ) from None
        rows.append(
            {
                k: float(v) if v in ("nan", "inf", "-inf") and k not in _TEXTS else v
                for k, v in row.items()
            }
        )
    return rows


# A layer may be named "nan".
_TEXTS = {*(field.name for field in dataclasses.fields(LayerInfo) if field.type is str), "reason"}


def _integer(name: str, value: Any) -> int:
    """Return a Python integer, which JSON knows, of one from numpy or JAX."""
    number = int(value) if isinstance(value, float | np.floating) and value == value // 1 else value
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(
            f"`{name}` (={value!r}) must be an integer: a number of updates."
        ) from None


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }
