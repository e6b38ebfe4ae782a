"""Processes that meet, or say who is missing; in threads."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.training.parallel.rendezvous import meet


@pytest.fixture
def address():
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def test_all_return_once_all_are_there_and_the_port_is_free(address):
    with ThreadPoolExecutor(4) as pool:
        late = [pool.submit(meet, address, 3, index, 20.0) for index in (2, 0)]
        time.sleep(0.3)
        assert not any(future.done() for future in late)
        meet(address, 3, 1, 20.0)
        for future in late:
            future.result()
    socket.create_server(("", int(address.split(":")[1]))).close()


def test_the_missing_are_named(address):
    with ThreadPoolExecutor(2) as pool:
        there = pool.submit(meet, address, 4, 2, 1.5)
        with pytest.raises(ValueError, match=rf"of 4 processes, 1, 3 did not come to {address} wi"):
            meet(address, 4, 0, 1.0)
        with pytest.raises(ValueError, match=rf"process 2 did not meet the others at {address}, "):
            there.result()


def test_a_port_that_is_taken(address):
    taken = socket.create_server(("", int(address.split(":")[1])))
    with taken, pytest.raises(ValueError, match="process 0 cannot listen at port"):
        meet(address, 2, 0, 1.0)
