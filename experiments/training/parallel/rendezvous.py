"""Whether all processes are there, before JAX joins them: it aborts where one is missing."""

import socket
import time
from contextlib import ExitStack

_RETRY_SECONDS = 0.2


def meet(address: str, count: int, index: int, seconds: float) -> None:
    """Return on every process once all ``count`` of them have called it.

    Process 0 listens at the address, and all others tell it their number. The port is free again
    afterwards.

    Args:
        address: ``HOST:PORT`` of process 0.
        count: Number of processes.
        index: Number of this one.
        seconds: How long to wait.

    Raises:
        ValueError: If the others are not there in time; process 0 names those that are missing.
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds
    if index == 0:
        _wait_for_others(int(port), count, until, address, seconds)
    else:
        _call(host.strip("[]"), int(port), index, until, address, seconds)


def _wait_for_others(port: int, count: int, until: float, address: str, seconds: float) -> None:
    there: set[int] = {0}
    with ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", port), backlog=count))
        except OSError as error:
            raise ValueError(
                f"process 0 cannot listen at port {port} ({error.strerror}). Give another free "
                "port of this machine to all: --coordinator-address HOST:PORT."
            ) from error
        callers = []
        while len(there) < count:
            left = until - time.monotonic()
            if left <= 0:
                missing = ", ".join(str(i) for i in range(count) if i not in there)
                raise ValueError(
                    f"of {count} processes, {missing} did not come to {address} within "
                    f"{seconds:g} s. Start all with the same command but for --process-id, and see "
                    "that they reach that address; to wait longer: --initialization-timeout."
                )
            server.settimeout(left)
            try:
                caller = stack.enter_context(server.accept()[0])
                caller.settimeout(max(left, 1.0))
                there.add(int.from_bytes(caller.recv(4), "big"))
            except TimeoutError:
                continue
            callers.append(caller)
        for caller in callers:
            caller.sendall(b"go")
            caller.recv(1)  # It closes first, so that the port is free at once.


def _call(host: str, port: int, index: int, until: float, address: str, seconds: float) -> None:
    reason = "no answer"
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as caller:
                caller.sendall(index.to_bytes(4, "big"))
                if caller.recv(2) == b"go":
                    return
        except OSError as error:
            reason = error.strerror or str(error) or reason
        time.sleep(min(_RETRY_SECONDS, max(0.0, until - time.monotonic())))
    raise ValueError(
        f"process {index} did not meet the others at {address}, process 0, within {seconds:g} s "
        f"({reason}). Start all with the same command but for --process-id, and see that this "
        "machine reaches that address; to wait longer: --initialization-timeout."
    )
