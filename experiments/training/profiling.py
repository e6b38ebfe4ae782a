"""A trace of some updates, as JAX's profiler writes it."""

from pathlib import Path

import jax

from experiments.common.files import Closing

SKIPPED = 5  # The first updates of a process: caches fill, pages are mapped.


class Profile(Closing):
    """Traces ``updates`` updates into ``folder``, while it is entered.

    The device may be some updates after the host. So the trace ends with the update that the host
    has asked for, and JAX waits for the device as it stops.

    Args:
        folder: Where to; TensorBoard's profile plugin, XProf and Perfetto read it.
        updates: How many updates, after the first few of the process; 0 traces nothing.
    """

    def __init__(self, folder: Path, updates: int) -> None:
        """Trace nothing yet."""
        self._folder, self._updates, self._seen = folder, updates, 0
        self._running = False

    def before_update(self) -> None:
        """Begin or end the trace, where that is due before the next update."""
        if not self._updates:
            return
        if self._seen == SKIPPED:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif self._seen == SKIPPED + self._updates:
            self.close()
        self._seen += 1

    def close(self) -> None:
        """Write what there is: all of it, or less where training was shorter."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


NO_PROFILE = Profile(Path(), 0)
