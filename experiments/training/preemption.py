"""Stopping in good order: Ctrl-C, a closed terminal, a scheduler's notice, or the time is up."""

import math
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Literal

import jax
from jax.experimental import multihost_utils

from experiments.common.errors import Preempted
from experiments.common.interrupt import end

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OnUsr1 = Literal["save", "stop"]
SOON = 5.0  # Seconds by which one process's clock may be after that of another.


class Preemption:
    """Notices signals while it is entered, and gives training ``grace_seconds`` to save.

    SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed) stop training; a second SIGINT
    ends the process at once. SIGUSR1 saves, and training goes on. What was ignored when the process
    started, as ``nohup`` ignores SIGHUP, still is.

    Training asks ``requested()`` between two updates. While nothing is being trained (``busy`` is
    False: the network is being compiled, say) there is nothing to save, and the process ends at
    once. When the time is over it ends too, with status 1 and a message: what was saved before is
    complete.

    Several processes have to stop at the same update, which JAX's preemption service finds; it also
    sees the notices of cloud machines. They cannot agree on an update to save at and go on from:
    there SIGUSR1 stops.

    Args:
        grace_seconds: Time to save; make it shorter than that of the scheduler, which then kills.
        max_seconds: After so many seconds it asks by itself; None for never.
        on_usr1: What SIGUSR1 does: "save" and go on, or "stop" as SIGTERM does.

    Attributes:
        busy: Whether there is something to save.
        save_wanted: Whether to save now, and go on.
        status: Exit status of a process that stops now: 0 when the time is up, else 128 plus the
            number of the signal, as shells and schedulers expect it.
    """

    def __init__(
        self,
        grace_seconds: float = 30.0,
        max_seconds: float | None = None,
        on_usr1: OnUsr1 = "save",
    ) -> None:
        """Do nothing yet."""
        self.busy = self.save_wanted = False
        self.status = 128 + signal.SIGTERM
        self._max_seconds, self._on_usr1 = max_seconds, on_usr1
        self._timer: threading.Timer | None = None
        self._grace_seconds = grace_seconds
        self._requested = threading.Event()
        self._finished = threading.Event()
        self._calls = 0
        self._before: dict[int, Any] = {}
        self._several = False
        self._began = time.monotonic()
        self._interrupted = False

    def requested(self) -> bool:
        """Return whether to stop now; every process must ask equally often."""
        self._calls += 1
        if self._several and multihost_utils.reached_preemption_sync_point(self._calls):
            self._request()
        return self._requested.is_set()

    def check(self) -> None:
        """Raise ``Preempted`` if training is to stop."""
        if self.requested():
            raise self.stop()

    def stop(self) -> Preempted:
        """Return the error to raise once training has stopped."""
        return Preempted(self.status)

    def _request(self, status: int | None = None) -> None:
        if status is not None:
            self.status = status
        if not self._requested.is_set():
            self._requested.set()
            threading.Thread(target=self._watch, daemon=True).start()

    def _time_is_up(self) -> None:
        self.status = 0
        if self._several:  # They have to agree on the update, so it is as if SIGTERM came.
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._request()

    def _watch(self) -> None:
        # The clock of another process may have been faster.
        left = (self._max_seconds or math.inf) - (time.monotonic() - self._began)
        if self._several and left < SOON:
            self.status = 0
        if not self.busy:
            end(self.status, "stopped; no update was lost. Continue with --resume auto.")
        if not self._finished.wait(self._grace_seconds):
            end(
                1,
                f"error: stopped before the state could be saved within --grace-seconds "
                f"(={self._grace_seconds:g}). The checkpoint before is complete; continue with "
                "--resume auto, and give more seconds if the scheduler does.",
            )

    def __enter__(self) -> "Preemption":
        """Start to notice signals; outside the main thread, where Python cannot, it does not."""
        self._several = jax.process_count() > 1
        self._began = time.monotonic()
        if self._max_seconds is not None:
            self._timer = threading.Timer(max(0.0, self._max_seconds), self._time_is_up)
            self._timer.daemon = True
            self._timer.start()
        if threading.current_thread() is not threading.main_thread():
            return self
        # After the terminal is closed, what is printed to it fails.
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        # Python runs a signal handler between two of its own steps, so not while a network is
        # compiled; but the number of the signal is written to a socket at once.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGUSR1):
            theirs = self._several and number == signal.SIGTERM  # JAX's preemption service.
            if not theirs and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _nothing)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def _listen(self) -> None:
        with self._reader:
            while received := self._reader.recv(1):
                if received[0] in self._before:
                    self._notice(signal.Signals(received[0]))

    def _notice(self, number: signal.Signals) -> None:
        if number == signal.SIGUSR1 and self._on_usr1 == "save" and not self._several:
            self.save_wanted = self.busy
            if not self.busy:
                _say("SIGUSR1: there is nothing to save.")
            return
        if number == signal.SIGHUP:
            for fd in self._terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        if number == signal.SIGINT and self._interrupted:
            end(128 + number, "ended at once; the checkpoint before is complete.")
        self._interrupted = self._interrupted or number == signal.SIGINT
        if self.busy and not self._requested.is_set():
            again = " Ctrl-C again ends at once." if number == signal.SIGINT else ""
            _say(f"{number.name}: saving, then stopping.{again}")
        self.status = 128 + number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._request()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go back to what signals did before."""
        self._finished.set()
        if self._timer is not None:
            self._timer.cancel()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup_before)
            for number, before in self._before.items():
                signal.signal(number, before)
            self._writer.close()  # Ends the listener.
            self._listener.join()


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing: Python writes to the socket only where a signal has a handler."""


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
