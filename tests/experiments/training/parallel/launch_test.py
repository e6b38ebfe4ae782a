"""The launch commands of docs/training.md run as they are, but small and on data that is here."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common.files import read_json, read_rows
from tests.experiments.training.parallel import pairs, two_processes

pytestmark = pytest.mark.slow  # Three processes.

PAGE = (pairs.ROOT / "docs" / "training.md").read_text()
# Later options count.
SMALL = [
    *two_processes.TRAIN.split(),
    *("--data.dataset", "digits", "--precision", "float32"),
]


def page_command(start: str) -> list[str]:
    """The options of the page's command that begins with ``start``."""
    (block,) = re.findall(rf"^ +{start} .*\n(?:(?<=\\\n).*\n)*", PAGE, re.MULTILINE)
    words = shlex.split(block.replace("\\\n", " "))
    place = words.index("experiments")
    assert words[place - 2 : place] == ["python", "-m"]
    assert words[place + 1] == "train"
    return words[place + 2 :]


def launch(options: list[str], run_dir: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts ``python -m experiments train`` with these options, and those that make it small."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", "train", *options, *SMALL, "--run-dir", str(run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pairs.ROOT,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **environment,
        },
    )


def free_job() -> int:
    """A Slurm job whose number gives JAX a port that is free: 61,440 and its last 12 bits."""
    for job in range(1000, 5000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 61440 + job % 4096)):
                return job
    raise AssertionError("no free port")


def test_slurm_is_one_workstation(tmp_path):
    """``srun`` starts processes with these variables; JAX finds the others by them."""
    options = page_command("srun")
    job = {"SLURM_JOB_ID": str(free_job()), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1", "JAX_NUM_CPU_DEVICES": "1"}
    outputs = pairs.finish(
        [
            launch(options, tmp_path / "slurm", **job, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
            for i in range(2)
        ]
    )
    assert "test accuracy" in outputs[0]
    # Process 0 alone writes; what begins so is of XLA's collectives.
    assert all(line.startswith("[Gloo]") for line in outputs[1].splitlines())
    # The same on one workstation, which uses all its devices.
    pairs.finish([launch(options, tmp_path / "workstation", JAX_NUM_CPU_DEVICES="2")])
    rows = []
    for name in ("slurm", "workstation"):
        assert len(read_json(tmp_path / name / "versions.json")["devices"]) == 2
        rows.append(read_rows(tmp_path / name / "ubn-seed0" / "train.jsonl"))
    assert [row["step"] for row in rows[0]] == list(range(1, 12))
    losses = [[row["loss"] for row in of] for of in rows]
    np.testing.assert_allclose(*losses, rtol=1e-5)
