"""Ctrl-C while libraries are being imported."""

import subprocess
import sys

import pytest

IMPORTING = """
import os, signal
from experiments.common.interrupt import ends_at_once
{before}
with ends_at_once():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:  # as a compiled library does
        raise ImportError
print("imported")
"""


@pytest.mark.parametrize(
    ("before", "status", "output", "error"),
    [
        (
            "signal.signal(signal.SIGINT, signal.default_int_handler)",
            130,
            "",
            "interrupted; nothing had been begun\n",
        ),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", 0, "imported\n", ""),
    ],
)
def test_an_import_ends_at_once(before, status, output, error):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(before=before)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, output, error)
