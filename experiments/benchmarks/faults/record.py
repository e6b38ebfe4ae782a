"""The fault test as one small JSON, and the tables made of it: the terminal's and the pages'."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.faults.compare import TIMES, Check
from experiments.benchmarks.faults.kill import Kill
from experiments.common.provenance import versions
from experiments.common.table import Column, Table


def faults_record(
    options: Mapping[str, Any],
    command: str,
    kills: Sequence[Kill],
    checks: Sequence[Check],
    updates: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the record of a fault test, ready for JSON.

    Args:
        options: Of the test.
        command: The command that repeats it.
        kills: What each kill met.
        checks: What was compared, and what differs.
        updates: Updates of all runs, of each of the two jobs.
        seconds: Times of the two jobs by their names.

    Returns:
        ``command``, ``options``, ``versions`` (code, libraries, hardware) and ``faults``, with the
        arguments above.
    """
    met = [
        {
            "planned": kill.moment.kind,
            "during": kill.during,
            "updates": kill.recorded,
            "saved": kill.saved,
        }
        for kill in kills
    ]
    found = {
        "updates": updates,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "kills": met,
        "checks": [check._asdict() for check in checks],
    }
    return {
        "command": command,
        "options": dict(options),
        "versions": versions(),
        "faults": found,
    }


def faults_tables(record: Mapping[str, Any]) -> dict[str, Table]:
    """Return two tables of a record, ``kills`` and ``compared``, by their keys."""
    found = record["faults"]
    return {"kills": _kills(found["kills"]), "compared": _compared(found["checks"])}


def _kills(kills: Sequence[Mapping[str, Any]]) -> Table:
    """Return how many kills met what, and how many updates they made the next process repeat."""
    rows: list[tuple[Any, ...]] = []
    for during in ("start", "training", "save", "any"):
        repeated = [k["updates"] - k["saved"] for k in kills if during in (k["during"], "any")]
        if repeated:
            mean = sum(repeated) / len(repeated)
            rows.append((during, len(repeated), mean, max(repeated)))
    columns = (
        *(Column("killed during"), Column("kills", "{:.0f}")),
        *(Column("updates repeated: mean", "{:.0f}"), Column("most", "{:.0f}")),
    )
    return Table("kills", "Kills", "", columns, rows)


def _compared(checks: Sequence[Mapping[str, Any]]) -> Table:
    """Return what was compared, and what differs."""
    rows = [(check["name"], check["size"], len(check["differences"])) for check in checks]
    columns = (Column("bit by bit"), Column("compared", "{:,.0f}"), Column("differ", "{:,.0f}"))
    caption = f"times are not compared: {', '.join(sorted(TIMES))}"
    return Table("compared", "Killed against undisturbed", caption, columns, rows)
