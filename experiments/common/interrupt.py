"""Ending at once: Ctrl-C while libraries are being imported, and where nothing else ends."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process with status 130 on Ctrl-C meanwhile.

    A compiled library that is interrupted as it is imported prints a traceback, and raises an
    ``ImportError`` that says nothing of Ctrl-C. What ignores SIGINT, or handles it, still does.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    end(128 + number, "interrupted; nothing had been begun")


def end(status: int, message: str) -> NoReturn:
    """Print a message on standard error and end the process at once, the cursor shown again."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    # Not through ``sys.stderr``: a moving line, which hides the cursor, has taken its place.
    with suppress(OSError):
        for fd in filter(os.isatty, (1, 2)):
            os.write(fd, b"\033[?25h")
    # Not `sys.exit`: the main thread may be inside a compiler or a device, and would go on.
    os._exit(status)
