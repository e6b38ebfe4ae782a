"""Starts a module of the tests as two processes that find each other."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[4]
Pair = list[subprocess.Popen[str]]


def start(module: str, folder: Path) -> Pair:
    """Starts ``python -m MODULE PROCESS_ID PORT FOLDER`` twice; to be ended by ``finish``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": "error",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, str(i), str(port), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for i in range(2)
    ]


def finish(processes: Pair, status: int = 0) -> list[str]:
    """Waits for both, which must end with a status, and returns what they printed."""
    try:
        outputs = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (output, error) in zip(processes, outputs, strict=True):
        assert process.returncode == status, output + error
    return [output for output, _ in outputs]
