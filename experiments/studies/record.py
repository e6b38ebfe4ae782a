"""Small studies as JSON: what their tables and figures in the pages are made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.analysis.compare.record import to_json
from experiments.common import provenance
from experiments.common.files import write_text


def write_record(
    folder: Path | None,
    study: str,
    options: Mapping[str, Any],
    fields: Sequence[str],
    rows: Sequence[Sequence[Any]],
    **more: Any,
) -> None:
    """Write ``STUDY.json`` into a folder, if one is given.

    Args:
        folder: experiments/results, for instance.
        study: Name of the command.
        options: What the rows depend on.
        fields: Names of the columns.
        rows: What was measured.
        **more: What else tables and figure need.
    """
    if folder is None:
        return
    record = {
        "study": study,
        "command": f"python -m experiments {study}",
        "options": dict(options),
        "versions": provenance.versions(),
        **more,
        "fields": list(fields),
        "rows": [list(row) for row in rows],
    }
    write_text(folder / f"{study}.json", to_json(record))
