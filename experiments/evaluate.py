"""Checks a finished run: ``python -m experiments.evaluate RUN_FOLDER``.

Restores every final checkpoint, evaluates it on the test images and compares with what was
reported, which must be the same image for image.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from experiments import checkpoint, record
from experiments import config as configs
from experiments.build import Program, build_program, evaluate_test
from experiments.cli import run_cli
from experiments.data import Dataset, load_dataset
from experiments.steps import TrainState


class NotReproducedError(ValueError):
    """A checkpoint's accuracy is not the one that was reported."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Restores the checkpoints of a run and checks the accuracies it reported."""

    run_folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that experiments.train wrote."""


def evaluate_run(run_folder: str, console: Console) -> list[dict[str, Any]]:
    """Evaluates the final checkpoint of every norm and seed of a run.

    Args:
        run_folder: Folder that ``experiments.train`` wrote.
        console: Where the findings go.

    Returns:
        The evaluations, in the order of the run's summary.

    Raises:
        ValueError: If the folder is not that of a finished run, or a checkpoint is damaged.
        NotReproducedError: If an accuracy differs.
    """
    folder = Path(run_folder)
    config = _on_this_machine(configs.from_dict(record.read_json(folder / "config.json")))
    summary = record.read_json(folder / "summary.json")
    dataset = load_dataset(config.data)
    programs = {norm: build_program(config, norm, dataset) for norm in config.norms}
    found, differences = [], []
    for reported in summary["results"]:
        program = programs[reported["norm"]]
        state = restore_final(folder, config, program, dataset, reported)
        values = evaluate_test(program, state, dataset)
        found.append(values)
        name = f"{reported['norm']}, seed {reported['seed']}"
        text = f"test accuracy {values['accuracy']:.4%}"
        if (values["correct"], values["count"]) == (reported["correct"], reported["count"]):
            console.print(f"{name}: {text}: reproduced")
            continue
        difference = (
            f"{name}: {text} ({values['correct']} of {values['count']}), but reported was "
            f"{reported['accuracy']:.4%} ({reported['correct']} of {reported['count']}): a "
            f"difference of {values['accuracy'] - reported['accuracy']:+.4%}"
        )
        console.print(difference)
        differences.append(difference)
    if differences:
        raise NotReproducedError(
            f"{len(differences)} of {len(found)} accuracies were NOT reproduced: "
            f"{'; '.join(differences)}. Compare the versions in {folder / 'versions.json'}."
        )
    return found


def _on_this_machine(config: configs.TrainConfig) -> configs.TrainConfig:
    """The devices that a run was trained on need not be here."""
    fits = config.optim.batch_size % (jax.device_count() * config.optim.accumulate) == 0
    devices = configs.DevicesConfig(
        num_devices=None if fits else 1, precision=config.devices.precision
    )
    return dataclasses.replace(config, devices=devices)


def restore_final(
    folder: Path,
    config: configs.TrainConfig,
    program: Program,
    dataset: Dataset,
    reported: dict[str, Any],
) -> TrainState:
    """Returns the final state of one norm and seed of a run.

    Args:
        folder: Folder of the run.
        config: Its configuration.
        program: The program of the norm.
        dataset: The images.
        reported: The norm's and seed's entry in the results of the run's summary.

    Raises:
        ValueError: If the checkpoint is damaged, or of another update than the last.
    """
    images = dataset.example(config.optim.batch_size)["image"]
    # Shapes are enough for a template, so nothing is initialized or compiled for it.
    template = jax.eval_shape(program.init, jax.random.key(0), images)
    state = checkpoint.restore(folder / reported["folder"] / "checkpoints", template).state
    if int(state.step) != reported["step"]:
        raise ValueError(
            f"the checkpoint in {folder / reported['folder']} is of update {int(state.step)}, but "
            f"the reported accuracy is of update {reported['step']}; repeat the run."
        )
    return state


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_cli(
        "python -m experiments.evaluate",
        EvaluateConfig,
        arguments,
        lambda config: evaluate_run(config.run_folder, Console()),
    )


if __name__ == "__main__":
    sys.exit(main())
