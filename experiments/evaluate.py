"""Checks a finished run: ``python -m experiments evaluate RUN_FOLDER``.

Restores every final checkpoint, evaluates it on the test images and compares with what was
reported, which must be the same image for image.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.common.cli import command
from experiments.data import load_dataset
from experiments.training.program import evaluate_test
from experiments.training.restored import read_config, restored


class NotReproducedError(ValueError):
    """A checkpoint's accuracy is not the one that was reported."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Restore the checkpoints of a run and checks the accuracies it reported."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that train wrote."""


def evaluate_run(run_folder: Path, console: Console) -> list[dict[str, Any]]:
    """Evaluate the final checkpoint of every norm and seed of a run.

    Args:
        run_folder: Folder that ``train`` wrote.
        console: Where the findings go.

    Returns:
        The evaluations, in the order of the run's summary.

    Raises:
        ValueError: If the folder is not that of a finished run, the data are not those of the
            run, or a checkpoint is damaged.
        NotReproducedError: If an accuracy differs.
    """
    dataset = load_dataset(read_config(run_folder).data)
    found, differences = [], []
    for network in restored(run_folder, dataset):
        reported = network.reported
        values = evaluate_test(network.program, network.state, dataset)
        found.append(values)
        name = f"{network.norm}, seed {network.seed}"
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
            f"{'; '.join(differences)}. Compare the versions in {run_folder / 'versions.json'}."
        )
    return found


main = command(
    "evaluate", EvaluateConfig, lambda config, console: evaluate_run(config.run_folder, console)
)


if __name__ == "__main__":
    sys.exit(main())
