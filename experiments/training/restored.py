"""The final states of a finished run of ``train``, on the devices that are here."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.analysis import results
from experiments.common import files
from experiments.config import experiment as configs
from experiments.data import Dataset
from experiments.training import checkpoint
from experiments.training.program import Program, build_program
from experiments.training.run_folder import check_data
from experiments.training.steps import TrainState


class Restored(NamedTuple):
    """One norm and seed of a finished run.

    Attributes:
        norm: Name of the norm.
        seed: The seed.
        reported: Its entry in the results of the run's summary.
        program: The program of the norm, the same for every seed; not compiled.
        state: Its final state.
    """

    norm: str
    seed: int
    reported: dict[str, Any]
    program: Program
    state: TrainState

    @property
    def variables(self) -> dict[str, Any]:
        """What ``program.model`` is applied to."""
        return {"params": self.state.params, "batch_stats": self.state.batch_stats}


def read_config(folder: Path) -> configs.TrainConfig:
    """Return the configuration of a finished run, for the devices that are here.

    Raises:
        ValueError: If the folder is not that of a finished run.
    """
    config = results.read_config(folder)
    files.read_json(folder / "summary.json")  # Where it is, the run is finished.
    return _on_this_machine(config)


def restored(folder: Path, dataset: Dataset) -> Iterator[Restored]:
    """Yield the final state of every norm and seed, in the order of the run's summary.

    Args:
        folder: Folder of the run.
        dataset: The images it was trained on.

    Raises:
        ValueError: If the folder is not that of a finished run, the data are not those of the
            run, or a checkpoint is damaged, or of another update than the last.
    """
    check_data(folder, dataset.record(), "Restore them: a run is looked at on its own data.")
    rows = files.read_numbers(folder / "summary.json")["results"]
    config = read_config(folder)
    programs = {norm: build_program(config, norm, dataset) for norm in config.norms}
    images = dataset.example(config.optim.batch_size)["image"]
    for reported in rows:
        program = programs[reported["norm"]]
        # Shapes are enough for a template, so nothing is initialized or compiled for it.
        template = jax.eval_shape(program.init, jax.random.key(0), images)
        state = checkpoint.restore(folder / reported["folder"] / "checkpoints", template).state
        if int(state.step) != reported["step"]:
            raise ValueError(
                f"the checkpoint in {folder / reported['folder']} is of update {int(state.step)}, "
                f"but the reported accuracy is of update {reported['step']}; repeat the run."
            )
        yield Restored(reported["norm"], reported["seed"], reported, program, state)


def _on_this_machine(config: configs.TrainConfig) -> configs.TrainConfig:
    """Return the options for the devices that are here; those of the training need not be."""
    fits = config.optim.batch_size % (jax.device_count() * config.optim.accumulate) == 0
    devices = configs.DevicesConfig(
        num_devices=None if fits else 1, precision=config.devices.precision
    )
    return dataclasses.replace(config, devices=devices, seeds_together=False)
