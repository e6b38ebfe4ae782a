"""Where commands write: what exists is never overwritten, and nothing is left half-written.

Training and studies that take long keep their results as they come: the same command with the same
options goes on in their folder (``open_study``). What is made at once comes at once
(``whole_folder``). A single file is checked before the work begins (``check_new``).
"""

import dataclasses
import datetime
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.common import files, provenance
from experiments.common.checks import local_path

CONFIG = "config.json"  # Written last of what a folder begins with: where it is, the rest is.
LOCK = ".lock"


def check_new(option: str, path: Path | None, way_out: str = "") -> None:
    """Raise ``ValueError`` if what a command is to write is there already.

    Args:
        option: Name of the option that gave the path.
        path: File or folder; None for nothing to write.
        way_out: What else can be done than to give another one.
    """
    if path is not None and path.exists():
        flag = option.replace("_", "-")
        raise ValueError(
            f"`{option}` (={str(path)!r}) exists, and results are never overwritten; give another "
            f"--{flag}{way_out}."
        )


def new_folder(option: str, path: str | Path | None, name: str, way_out: str = "") -> Path:
    """Make and return a folder that did not exist before.

    Args:
        option: Name of the option that gave the path.
        path: The folder; None for ``runs/NAME-DATE-TIME``, with a number behind it if that exists.
        name: For a folder that nobody named.
        way_out: As for ``check_new``.

    Raises:
        ValueError: If it exists.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        of_now = Path("runs") / (f"{name}-{now}" + (f"-{number}" if number > 1 else ""))
        folder = of_now if path is None else local_path(option, path)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if path is not None:
                check_new(option, folder, way_out)
            number += 1


@contextmanager
def whole_folder(option: str, path: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``path`` once that has worked.

    Raises:
        ValueError: If ``path`` exists.
    """
    check_new(option, path)
    # A name that nobody else has: what is deleted below is ours.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_begun(folder: Path) -> bool:
    """Return whether there is a folder with more than a process leaves that was killed at once."""
    return folder.is_dir() and not all(_is_left_over(path) for path in folder.iterdir())


def _is_left_over(path: Path) -> bool:
    """Return whether a file is one that is written before ``CONFIG``, by us."""
    if path.name in (LOCK, "versions.json", "data.json") and path.stat().st_size == 0:
        return True
    # As ``files.replacing`` calls them.
    if re.fullmatch(r"(versions|data|config)\.tmp\.json", path.name):
        return True
    try:
        return path.name in ("versions.json", "data.json") and isinstance(
            files.read_json(path), dict
        )
    except ValueError:
        return False


def options_of(config: Any, *apart: str) -> dict[str, Any]:
    """Return the options of a study as they come back from JSON, lists for tuples.

    Args:
        config: A dataclass.
        *apart: Its fields that results do not depend on, such as the folder, which may be moved.
    """
    values = dataclasses.asdict(config)
    kept = {name: value for name, value in values.items() if name not in apart}
    return json.loads(json.dumps(files.to_plain(kept), allow_nan=False))


def open_study(option: str, out: Path, options: Mapping[str, Any]) -> None:
    """Make a study's folder with its ``config.json``, or check that it is of the same options.

    Args:
        option: Name of the option that gave the folder.
        out: The folder.
        options: What results depend on, see ``options_of``.

    Raises:
        ValueError: If it is there and holds something else, or a study with other options.
    """
    if not is_begun(out):
        if not out.is_dir():
            new_folder(option, out, "study")
        files.write_json(out / "versions.json", provenance.versions())
        files.write_json(out / CONFIG, options)
        return
    if not (out / CONFIG).exists():
        check_new(option, out)
    old = files.read_dict(out / CONFIG)
    for name in options:
        if old.get(name) != options[name]:
            raise ValueError(
                f"`{option}` (={str(out)!r}) holds a study with another `{name}` (="
                f"{old.get(name)}, not {options[name]}), and results are never overwritten; give "
                f"another --{option.replace('_', '-')}, or the same options."
            )
