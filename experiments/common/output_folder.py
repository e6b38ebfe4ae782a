"""Folders of studies that take long: results are kept as they come, and never mixed or lost."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common import files, provenance


def options_of(config: Any, *apart: str) -> dict[str, Any]:
    """Return the options of a study as they come back from JSON, lists for tuples.

    Args:
        config: A dataclass.
        *apart: Its fields that results do not depend on, such as the folder, which may be moved.
    """
    values = dataclasses.asdict(config)
    kept = {name: value for name, value in values.items() if name not in apart}
    return json.loads(json.dumps(files.to_plain(kept), allow_nan=False))


def open_study(out: Path, options: Mapping[str, Any]) -> None:
    """Make a study's folder with its ``config.json``, or check that it is of the same options.

    Args:
        out: The folder.
        options: What results depend on, see ``options_of``.

    Raises:
        ValueError: If it is there and holds something else, or a study with other options.
    """
    path = out / "config.json"
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        if not path.exists():
            raise ValueError(
                f"`out` (={str(out)!r}) exists, and is not the folder of a study; give another "
                "--out."
            ) from None
        old = files.read_json(path)
        changed = [name for name in options if old.get(name) != options[name]]
        if changed:
            name = changed[0]
            raise ValueError(
                f"`out` (={str(out)!r}) holds a study with another `{name}` (={old.get(name)}, not "
                f"{options[name]}), which is not overwritten; give another --out, or the same "
                "options."
            ) from None
        return
    files.write_json(out / "versions.json", provenance.versions())
    files.write_json(path, options)
