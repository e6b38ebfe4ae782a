"""One of two processes with four devices each; ``distributed_test.py`` starts both, once.

    python -m tests.experiments.training.parallel.two_processes PROCESS_ID PORT FOLDER

Everything that several processes do together is done here; the numbers and messages go to
``FOLDER/PROCESS_ID.npz`` and ``.json``, where the test looks at them.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils
from rich.console import Console

from experiments import train
from experiments.config.experiment import TrainConfig, to_dict
from experiments.config.parallel import DevicesConfig
from experiments.training import distributed, loop
from experiments.training import job as training_job
from tests.experiments.training.parallel import groups, job, masks

MODES = ("pmap", "shard_map")  # The training job is jit.
GROUPED = {"parallel": "jit", "statistics": "grouped", "statistics_group": 2}
TRAIN = (
    "--model.name preact --model.blocks 1 --model.widths 4 --norms ubn --seeds 0 "
    "--evals-per-epoch 1 --checkpoint-every 1 "
    "--data.max-shift 0 --probe.every 0 --optim.epochs 1 --optim.batch-size 128 "
    "--optim.learning-rate 0.01"
)

# Of 3 epochs: one that can be stopped meanwhile, see ``stopped.py``.
LONGER = [*TRAIN.split(), "--optim.epochs", "3"]
# Where it was stopped, the same with a damaged checkpoint, and from its beginning.
LONGER_RUNS = ("stopped", "damaged", "whole")


def message(function: Any, *arguments: Any) -> str:
    """The error that ``function`` raises."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return "no error"


def files(folder: Path) -> dict[str, Any]:
    """What comes of what process 0 does alone, fails to do, and process 1 does not see."""

    def make() -> str:
        (folder / "there").mkdir()
        return "made"

    def fail() -> None:
        raise ValueError("it exists")

    made = distributed.on_writer(make)
    with mock.patch.object(Path, "is_dir", return_value=jax.process_index() == 0):
        unseen = message(distributed.check_shared, folder / "there")
    return {"made": made, "failed": message(distributed.on_writer, fail), "unseen": unseen}


def train_longer(folder: Path) -> dict[str, list[Any]]:
    """Ends the longer runs; returns of each after which update this process went on.

    And the numbers of the questions whether to stop, which JAX wants one after another.
    """
    console = Console(quiet=not distributed.is_writer())
    steps: list[int] = []
    questions: list[list[int]] = []
    loop_start, ask = loop.start, multihost_utils.reached_preemption_sync_point

    def start(*arguments: Any) -> Any:
        run = loop_start(*arguments)
        steps.append(run.step)
        return run

    def reached(number: int) -> bool:
        questions[-1].append(number)
        return ask(number)

    with (
        mock.patch.object(loop, "start", start),
        mock.patch.object(multihost_utils, "reached_preemption_sync_point", reached),
    ):
        for name in LONGER_RUNS:
            questions.append([])
            arguments = [*LONGER, "--run-dir", str(folder / name), "--resume", "auto"]
            training_job.train(tyro.cli(TrainConfig, args=arguments), console, figures=False)
    return {"steps": steps, "questions": questions}


def main(process: int, port: int, folder: Path) -> None:
    options = {"coordinator_address": f"127.0.0.1:{port}", "num_processes": 2}
    assert distributed.initialize(DevicesConfig(**options, process_id=process))
    numbers = {mode: job.run(job.configure(parallel=mode), "ubn") for mode in MODES}
    numbers["grouped"] = job.run(job.configure(**GROUPED), "ubn")
    for mode in MODES:
        numbers[f"groups {mode}"] = groups.statistics(mode)
    numbers["masks"] = job.flatten(masks.statistics("shard_map"))

    resume = ["--resume", "must", "--run-dir", str(folder / "run")]
    config = job.configure(process_id=process, **options)
    same = message(distributed.check_same, to_dict(config))
    other = to_dict(job.configure(penalty=0.1 * process, **options, process_id=process))
    messages = {
        "processes": jax.process_count(),
        "devices": [jax.device_count(), jax.local_device_count()],
        "same": same,
        "other": message(distributed.check_same, other),
        **files(folder),
        "status": train.main([*TRAIN.split(), *resume]),
        "longer": train_longer(folder),
    }
    flat = {f"{case} {name}": v for case, values in numbers.items() for name, v in values.items()}
    np.savez(folder / f"{process}.npz", **flat)
    (folder / f"{process}.json").write_text(json.dumps(messages))
    distributed.leave()


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
