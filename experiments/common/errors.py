"""Errors and stops that a command reports in one line."""


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or a weight was not a finite number; training stopped."""


class Preempted(Exception):
    """Training was asked to stop; it has saved, or is about to.

    Args:
        status: Exit status of the process: 0, or 128 plus the number of the signal that asked.
    """

    def __init__(self, status: int = 0) -> None:
        """Keep the status."""
        super().__init__("training was asked to stop")
        self.status = status
