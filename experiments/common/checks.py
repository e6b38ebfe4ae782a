"""Checks that the configurations share."""

import dataclasses
import math
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def positive(**values: float) -> None:
    """Raise ``ValueError`` naming the first of ``values`` that is not a positive number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` (={value}) must be a positive number.")


def check_seeds(**values: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless every seed is below 2^32: others give the same keys as these."""
    for name, seeds in values.items():
        for seed in seeds:
            if not 0 <= seed < 2**32:
                raise ValueError(f"`{name}` (={seed}) must be from 0 to 2^32 - 1 = {2**32 - 1}.")


def not_negative(**values: float) -> None:
    """Raise ``ValueError`` naming the first of ``values`` that is negative or not finite."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` (={value}) must be zero or a positive number.")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` naming the choices, and the one that was meant, if it is none of them.

    Example:
        >>> check_choice("norm", "ubm", ("ubn", "gn"))
        Traceback (most recent call last):
            ...
        ValueError: `norm` (='ubm') is unknown; choose from ubn, gn. Did you mean ubn?
    """
    choices = tuple(choices)
    if value in choices:
        return
    near = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"`{name}` (={value!r}) is unknown; choose from {', '.join(choices)}.{hint}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value, a tuple for a list, is of the type of an option.

    Example:
        >>> fits((1, 2), tuple[int, ...]), fits("1", int | None), fits(1, float)
        (True, False, True)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str)  # Which one, the option itself checks.
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(entry, arguments[0]) for entry in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str | Path)
    return isinstance(value, hint)


# Options that are files or folders, though text. Not ``data_dir``: some data sets are read from
# ``gs://``, and who reads one refuses other addresses.
_PATHS = frozenset(
    {
        *("run_dir", "run_folder", "run_folders", "folder", "trained", "out", "record", "json"),
        *("cache_dir", "manual_dir"),
    }
)


def is_address(value: str | Path) -> bool:
    """Return whether a path is an address, such as ``gs://bucket/x``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(value)) is not None  # Path drops a slash.


def local_path(name: str, value: str | Path) -> Path:
    """Return a file or folder of this machine, ``~`` expanded.

    Raises:
        ValueError: If it is an address, such as ``gs://bucket/x``.

    Example:
        >>> local_path("out", "runs/a")
        PosixPath('runs/a')
    """
    if is_address(value):
        shown = re.sub(":/+", "://", str(value), count=1)
        why = ": rows need one that appends and renames" if name == "run_dir" else ""
        mirror = "; --mirror copies the run folder to an address" if name == "run_dir" else ""
        raise ValueError(
            f"`{name}` (={shown!r}) must be on a file system of this machine{why}. Mount it and "
            f"give that folder, or copy it{mirror}."
        )
    try:
        str(value).encode()
    except UnicodeEncodeError:
        shown = str(value).encode("utf-8", "backslashreplace").decode()
        raise ValueError(
            f"`{name}` (={shown!r}) must be UTF-8 text: the libraries that write checkpoints and "
            "reports know no other names. Rename it, or give a link to it."
        ) from None
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # ~somebody who is not here.
        raise ValueError(f"`{name}` (={str(value)!r}) cannot be found: {error}") from None


def with_local_paths(config: Any) -> Any:
    """Return options, a dataclass, in which every file and folder is a ``local_path``.

    Raises:
        ValueError: If one is an address.
    """

    def converted(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return with_local_paths(value)
        if isinstance(value, tuple):
            return tuple(converted(name, entry) for entry in value)
        if isinstance(value, Path):
            return local_path(name, value)
        return str(local_path(name, value)) if name in _PATHS and isinstance(value, str) else value

    old = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    new = {name: converted(name, value) for name, value in old.items()}
    return config if new == old else dataclasses.replace(config, **new)
