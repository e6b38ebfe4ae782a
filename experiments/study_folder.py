"""Folders of studies that take long: results are kept as they come, and never mixed or lost."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import record


def open_study(out: Path, options: Mapping[str, Any]) -> None:
    """Makes a study's folder with its ``config.json``, or checks that it is of the same options.

    Args:
        out: The folder.
        options: What results depend on, ready for JSON.

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
        old = record.read_json(path)
        changed = [name for name in options if old.get(name) != options[name]]
        if changed:
            name = changed[0]
            raise ValueError(
                f"`out` (={str(out)!r}) holds a study with another `{name}` (={old.get(name)}, not "
                f"{options[name]}), which is not overwritten; give another --out, or the same "
                "options."
            ) from None
        return
    write_whole(out / "versions.json", record.versions())
    write_whole(path, options)


def write_whole(path: Path, content: Any) -> None:
    """Writes JSON, so that the file is there in full or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    record.write_json(partial, content)
    os.replace(partial, path)
