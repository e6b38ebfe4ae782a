"""Checks a finished run: ``python -m experiments evaluate RUN_FOLDER``.

Restores every final checkpoint, evaluates it on the test images and compares with what was
reported, which must be the same image for image; or evaluates it on corrupted images.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from experiments.analysis.corruptions import corruption_table
from experiments.analysis.figures.corruptions import corruptions_figure
from experiments.analysis.names import labels_of
from experiments.common import files, provenance
from experiments.common.checks import check_seeds
from experiments.common.cli import command
from experiments.common.output_folder import options_of
from experiments.data import load_dataset
from experiments.training import corrupted
from experiments.training.program import evaluate_test
from experiments.training.restored import read_config, restored


class NotReproducedError(ValueError):
    """A checkpoint's accuracy is not the one that was reported."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Restore the checkpoints of a run and check the accuracies it reported.

    With --corruptions, measure accuracy on corrupted test images instead: 8 corruptions (noise,
    blur, contrast, brightness, pixelation, JPEG) of 5 severities each, with the running statistics
    of training, and recalibrated on these images without their labels. Names and strengths are
    those of CIFAR-10-C, whose own images and random numbers are others: do not compare numbers
    with it. Strengths are made for 32x32 pixels; smaller images suffer more from blur. Writes
    corruptions.json and corruptions.png into the run folder.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that train wrote."""
    corruptions: bool = False
    """Evaluate on corrupted test images."""
    seed: int = 0
    """Seed of the corruptions."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seed=(self.seed,))


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


def evaluate_corruptions(run_folder: Path, seed: int, console: Console) -> Path:
    """Evaluate every norm and seed of a run on corrupted test images; write record and figure.

    A record that is there already is shown again.

    Args:
        run_folder: Folder that ``train`` wrote.
        seed: Of the corruptions.
        console: Where progress and table go.

    Returns:
        The record.

    Raises:
        ValueError: As ``evaluate_run``; or if there is a record of another seed.
    """
    path = run_folder / "corruptions.json"
    if path.exists():
        record = files.read_dict(path)
        if record.get("seed") != seed:
            raise ValueError(
                f"{path} is of seed {record.get('seed')}, not `seed` (={seed}), and results are "
                "never overwritten; move it away, or give its --seed."
            )
    else:
        config = read_config(run_folder)
        dataset = load_dataset(config.data)
        off = not console.is_terminal
        with Progress(console=console, transient=True, disable=off) as progress:
            total = len(config.norms) * len(config.seeds) * len(corrupted.CASES)
            task = progress.add_task("Networks", total=total + 1)

            def done(what: str) -> None:
                progress.update(task, advance=1, description=what)
                if off and what.endswith(corrupted.CLEAN):
                    console.print(f"{what}, and {len(corrupted.CASES) - 1} corruptions ...")

            rows = list(corrupted.measure(restored(run_folder, dataset), dataset, seed, done))
        record = {
            "seed": seed,
            "command": f"python -m experiments evaluate RUN --corruptions --seed {seed}",
            "options": options_of(config, "run_dir", "mirror"),
            "labels": labels_of(config),
            "data": {"name": dataset.name},
            "versions": provenance.versions(),
            "corruptions": [row._asdict() for row in rows],
        }
        files.write_json(path, record)
    figure = path.with_suffix(".png")
    with files.replacing(figure) as unfinished:
        corruptions_figure(record).savefig(unfinished, dpi=130)
    console.print(corruption_table(record))
    console.print(f"Record: {path}; figure: {figure}.", soft_wrap=True)
    return path


def _run(config: EvaluateConfig, console: Console) -> None:
    if config.corruptions:
        evaluate_corruptions(config.run_folder, config.seed, console)
    else:
        evaluate_run(config.run_folder, console)


main = command("evaluate", EvaluateConfig, _run)


if __name__ == "__main__":
    sys.exit(main())
