"""Ctrl-C while libraries are being imported."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
    show_cursor = "\033[?25h" if sys.stderr.isatty() else ""
    print(f"{show_cursor}interrupted; nothing had been begun", file=sys.stderr, flush=True)
    os._exit(128 + number)
