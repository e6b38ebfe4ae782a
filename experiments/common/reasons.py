"""What orbax and TensorStore say when something goes wrong, cut to what a user needs."""

import logging
import re
import sys
from typing import Any


def reason(error: BaseException) -> str:
    """Return why a file could not be read or written, with its name where it is known.

    Example:
        >>> reason(ValueError('OUT_OF_RANGE: Error opening "zarr" driver: Error reading local file '
        ...     '"/a/d/1": Requested byte range [0, 9) is not valid [tensorstore_spec=...]'))
        'Requested byte range [0, 9) is not valid (file /a/d/1)'
        >>> reason(OSError(28, "No space left on device", "/a/b"))
        'No space left on device (file /a/b)'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" (file {error.filename})" if error.filename else "")
    # Orbax sometimes hides the cause behind a message of its own.
    text = str(error.__cause__ or error).split(" [tensorstore_spec")[0].split(" [os_error_code")[0]
    text = " ".join(text.split())
    files = re.findall(r'"(/[^"]*)"', text)
    status = re.match(r"([A-Z_]+): ", text)
    last = text.rsplit('": ', 1)[-1]
    if status and text.endswith('"'):
        last = status[1].lower().replace("_", " ")
    if not status:
        last = f"{type(error).__name__}: {text}"
    return last[:200] + (f" (file {files[-1]})" if files else "")


def drop_logs() -> None:
    """Keep orbax from printing pages of tracebacks: its errors are raised as well, and rewritten.

    Its loggers are those of absl, for everybody, so records are dropped by where they come from.
    """
    logger = logging.getLogger("absl")
    if _from_elsewhere not in logger.filters:
        logger.addFilter(_from_elsewhere)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


_WAYS_OUT = {
    "No space left": "make room",
    "quota": "make room",
    "File too large": "allow longer files (ulimit -f)",
    "Read-only": "make the disk writable",
    "ermission denied": "make the folder writable",
    "not permitted": "make the folder writable",
    "Input/output error": "have the disk checked",
    "No such file": "give a path that is there, or can be made",
    "Not a directory": "give a path that is not below a file",
    "name too long": "give a shorter name",
}


def way_out(problem: str) -> str:
    """Return what to do about a reason why something could not be written.

    Example:
        >>> way_out("No space left on device (file /a/b)")
        'make room'
    """
    ways = (way for words, way in _WAYS_OUT.items() if words.lower() in problem.lower())
    return next(ways, "remove the cause")


def ignore_closed_loop() -> None:
    """Ignore the threads that a failed save or restore leaves behind, with their loop closed.

    Python prints a traceback for each that no caller can catch, through one of two hooks.
    """
    if getattr(sys.unraisablehook, "ignores_closed_loop", False):
        return
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def on_unraisable(problem: "sys.UnraisableHookArgs") -> None:
        if str(problem.exc_value) != _CLOSED:
            unraisable(problem)

    def on_uncaught(kind: Any, error: BaseException, trace: Any) -> None:
        if str(error) != _CLOSED:
            uncaught(kind, error, trace)

    on_unraisable.ignores_closed_loop = True  # type: ignore[attr-defined]
    sys.unraisablehook, sys.excepthook = on_unraisable, on_uncaught


_CLOSED = "Event loop is closed"
