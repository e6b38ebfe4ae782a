"""One of two processes of a training job that is slow enough to be stopped while it trains.

python -m tests.experiments.training.parallel.stopped PROCESS_ID PORT RUN_DIR
"""

import sys
import time
from unittest import mock

import jax

from experiments import train
from experiments.training import job
from experiments.training.preemption import Preemption
from tests.experiments.training.parallel import two_processes

GRACE_SECONDS = 60.0


class Slow(Preemption):
    """Lets an update take as long as one of a real network."""

    def requested(self) -> bool:
        time.sleep(0.3)
        return super().requested()


def main(process: str, port: str, run_dir: str) -> int:
    arguments = [*two_processes.LONGER, "--run-dir", run_dir, "--resume", "auto"]
    arguments += ["--coordinator-address", f"127.0.0.1:{port}", "--num-processes", "2"]
    arguments += ["--process-id", process, "--grace-seconds", str(GRACE_SECONDS)]
    with mock.patch.object(job, "Preemption", Slow):
        return train.main(arguments)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    sys.exit(main(*sys.argv[1:]))
