"""The Slurm script runs as it is, with an ``srun`` that starts two tasks on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common.files import read_json, read_rows
from tests.experiments.training.parallel import pairs, two_processes

SCRIPT = pairs.ROOT / "experiments" / "pods" / "slurm.sh"
# Small, and on data that is here; later options count.
SMALL = [
    *two_processes.TRAIN.split(),
    *("--data.dataset", "digits", "--precision", "float32"),
]
# What srun tells its tasks; JAX finds the other one by these variables.
TASKS = """#!/usr/bin/env bash
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=localhost
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
wait $first && wait $second
"""


def run(folder: Path, srun: str, options: list[str], **environment: str):
    """Runs the script with this ``srun``; ``scontrol`` writes down what it is asked."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in {
        "srun": srun,
        "scontrol": f'#!/usr/bin/env bash\necho "$@" >> {folder}/scontrol\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return subprocess.run(
        [str(SCRIPT), *options],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=pairs.ROOT,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "RUN": str(folder / "run"),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
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


@pytest.mark.slow  # Three processes.
def test_two_tasks_are_one_workstation(tmp_path):
    rows, outputs = [], []
    for name, srun, devices in (
        ("slurm", TASKS, "1"),
        ("workstation", '#!/usr/bin/env bash\nexec "$@"\n', "2"),
    ):
        (tmp_path / name).mkdir()
        job = {"SLURM_JOB_ID": str(free_job())} if name == "slurm" else {}
        done = run(tmp_path / name, srun, SMALL, JAX_NUM_CPU_DEVICES=devices, **job)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
        assert len(read_json(tmp_path / name / "run" / "versions.json")["devices"]) == 2
        rows.append(read_rows(tmp_path / name / "run" / "ubn-seed0" / "train.jsonl"))
    # Process 0 alone writes.
    assert outputs[0].count("test accuracy") == outputs[1].count("test accuracy") > 0
    assert [row["step"] for row in rows[0]] == list(range(1, 12))
    losses = [[row["loss"] for row in of] for of in rows]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(("status", "asked"), [(0, None), (143, "requeue 7\n"), (1, None)])
def test_a_stopped_job_goes_back_into_the_queue(tmp_path, status, asked):
    srun = f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/srun\nexit {status}\n'
    done = run(tmp_path, srun, ["--seeds", "0"], SLURM_JOB_ID="7")
    assert done.returncode == status
    words = (tmp_path / "srun").read_text().splitlines()
    assert words[1:4] == ["-m", "experiments", "train"]
    assert words[-2:] == ["--seeds", "0"]
    assert words[words.index("--resume") + 1] == "auto"
    written = tmp_path / "scontrol"
    assert (written.read_text() if written.exists() else None) == asked
