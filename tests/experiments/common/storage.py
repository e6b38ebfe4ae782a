"""Disks that are full, or cannot be written."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments.training.record import Recorder


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Lets no file of this process become longer: a write error, wherever the tests run."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    option = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, option)
    jax.config.update(option, 1e9)  # Or half a program is left in the cache, for the next test.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        jax.config.update(option, before)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Makes ``folder`` a disk of ``size`` ("1m"); skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    """Makes a disk of ``small_disk`` one that cannot be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leaves no room on a disk of ``small_disk``; returns the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def fail_to_write_the_probes_rows(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Has no room for the rows of the probe from update ``step`` on."""
    write = Recorder.write_lines

    def refuse(self: Recorder, kind: str, rows: list[dict[str, Any]]) -> None:
        if kind == "ics" and rows[0]["step"] >= step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, kind, rows)

    monkeypatch.setattr(Recorder, "write_lines", refuse)
