"""Stopping in good order when the machine is taken away: SIGTERM, a notice, or the time is up."""

import os
import signal
import socket
import sys
import threading
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from experiments.common.errors import Preempted


class Preemption:
    """Notices SIGTERM while it is entered, and gives training ``grace_seconds`` to save.

    Training asks ``requested()`` between two updates. While nothing is being trained (``busy`` is
    False: the network is being compiled, say) there is nothing to save, and the process ends at
    once. When the time is over it ends too, with status 1 and a message: what was saved before is
    complete.

    Several processes have to stop at the same update, which JAX's preemption service finds; it also
    sees the notices of cloud machines.

    Args:
        grace_seconds: Time to save; make it shorter than that of the scheduler, which then kills.
        max_seconds: After so many seconds it asks by itself; None for never.

    Attributes:
        busy: Whether there is something to save.
    """

    def __init__(self, grace_seconds: float = 30.0, max_seconds: float | None = None) -> None:
        """Do nothing yet."""
        self.busy = False
        self._max_seconds = max_seconds
        self._timer: threading.Timer | None = None
        self._grace_seconds = grace_seconds
        self._requested = threading.Event()
        self._finished = threading.Event()
        self._calls = 0
        self._before: Any = None
        self._several = False

    def requested(self) -> bool:
        """Return whether to stop now; every process must ask equally often."""
        self._calls += 1
        if self._several and multihost_utils.reached_preemption_sync_point(self._calls):
            self._request()
        return self._requested.is_set()

    def check(self) -> None:
        """Raise ``Preempted`` if training is to stop."""
        if self.requested():
            raise Preempted

    def _request(self) -> None:
        if not self._requested.is_set():
            self._requested.set()
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        if not self.busy:
            _exit(0, "stopped; no update was lost. Continue with --resume auto.")
        if not self._finished.wait(self._grace_seconds):
            _exit(
                1,
                f"error: stopped before the state could be saved within --grace-seconds "
                f"(={self._grace_seconds:g}). The checkpoint before is complete; continue with "
                "--resume auto, and give more seconds if the scheduler does.",
            )

    def __enter__(self) -> "Preemption":
        """Start to notice SIGTERM; outside the main thread, where Python cannot, it does not."""
        self._several = jax.process_count() > 1
        if self._max_seconds is not None:
            # Several processes have to agree on the update, so there it is as if SIGTERM came.
            ask = partial(os.kill, os.getpid(), signal.SIGTERM) if self._several else self._request
            self._timer = threading.Timer(max(0.0, self._max_seconds), ask)
            self._timer.daemon = True
            self._timer.start()
        if self._several or threading.current_thread() is not threading.main_thread():
            return self
        # Python runs a signal handler between two of its own steps, so not while a network is
        # compiled; but the number of the signal is written to a socket at once.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGTERM, _nothing)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def _listen(self) -> None:
        with self._reader:
            while received := self._reader.recv(1):
                if received[0] == signal.SIGTERM:
                    self._request()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go back to what SIGTERM did before."""
        self._finished.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            signal.signal(signal.SIGTERM, self._before)
            self._writer.close()  # Ends the listener.
            self._listener.join()


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing: Python writes to the socket only where a signal has a handler."""


def _exit(status: int, message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    # Not `sys.exit`: the main thread may be inside a compiler or a device, and would go on.
    os._exit(status)
