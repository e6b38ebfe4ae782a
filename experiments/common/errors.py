"""Errors and stops that a command reports in one line."""


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or a weight was not a finite number; training stopped."""


class Preempted(Exception):
    """Training was asked to stop; it has saved, or is about to."""
