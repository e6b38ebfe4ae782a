"""Flags of the study, its output folder and its tables."""

import dataclasses
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from experiments.common import files
from experiments.common.checks import check_seeds, not_negative, positive
from experiments.common.cli import command
from experiments.common.output_folder import new_folder, open_study, options_of
from experiments.config import experiment as configs
from experiments.data import load_arrays
from experiments.studies.noise.figure import noise_figure
from experiments.studies.noise.networks import make_networks
from experiments.studies.noise.study import KINDS, Protocol, Row, measure
from experiments.studies.noise.table import noise_tables
from experiments.studies.record import write_record
from experiments.training.job import train
from experiments.training.restored import read_config, restored
from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """How well do trained networks work on noisy analog hardware, and what do statistics help?

    Disturbs the weights of trained networks, or the outputs of their layers, and measures the test
    accuracy: with the running statistics of training (clean); with statistics recalibrated under
    the noise on training images without labels; with statistics that track the test images; and of
    networks without normalization. No weight is trained.

    Noises: additive (normal, in units of the range of a layer's weights), multiplicative, output
    (of convolutions and classifier, in units of their root mean square), drift (w * t^-nu, nu of
    mean 0.05 and deviation 0.025 between weights), quantization (bits).

    Writes noise.csv (one row per measurement), noise.png, config.json and versions.json, and
    trains the networks first, unless a finished run of train is given.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    """Noises: additive, multiplicative, output, drift, quantization."""
    levels: tuple[float, ...] | None = None
    """Strengths, for one kind of noise; default: several from weak to strong for each kind."""
    dynamic: bool = False
    """A new draw of the noise for every forward pass; else each chip keeps its own."""
    chips: int = 3
    """Draws of the noise per network and strength; one for quantization, which is not random."""
    batch_size: int = 60
    """Images per forward pass: those whose statistics are collected, or tracked, together."""
    calibration_batches: int = 8
    """Batches of training images for the recalibration."""
    rate: float = 0.3
    """Weight of each batch in tracking, in [0, 1]; 1 uses the statistics of the batch alone."""
    norms: tuple[str, ...] = ("bn", "ubn", "none")
    """Normalizations to train, see train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training."""
    epochs: int = 15
    """Epochs of the training."""
    trained: Path | None = None
    """Folder of a finished run of train to take the networks from; norms, seeds and
    epochs are then its own."""
    run_dir: Path | None = None
    """Folder to create, or one of a study with the same options, to go on with. Default:
    runs/noise-DATE-TIME."""
    record: Path | None = None
    """Folder for noise.json, what the pages show: experiments/results."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seeds=self.seeds)
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"noise (={kind!r}) is unknown; choose from {', '.join(KINDS)}.")
        if not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"`kinds` (={self.kinds}) must be one or more different noises.")
        if self.levels is not None:
            if len(self.kinds) != 1 or not self.levels:
                raise ValueError(
                    f"`levels` (={self.levels}) must be one or more, of one kind of noise: give "
                    "--kinds with one name too."
                )
            for level in self.levels:
                (KINDS[self.kinds[0]].make or additive_noise)(level)  # which checks it
        positive(
            chips=self.chips,
            batch_size=self.batch_size,
            calibration_batches=self.calibration_batches,
            epochs=self.epochs,
        )
        not_negative(rate=self.rate)
        if self.rate > 1:
            raise ValueError(f"`rate` (={self.rate}) must be in [0, 1].")


def study(config: NoiseConfig, console: Console) -> Path:
    """Train if need be, measure, write and print.

    Returns:
        The folder.

    Raises:
        ValueError: If a value is not possible, the folder holds something else, or the run given
            is not one.
    """
    start = time.perf_counter()
    training = read_config(config.trained) if config.trained else None
    out = config.run_dir or new_folder("run_dir", None, "noise")
    open_study("run_dir", out, options_of(config, "run_dir", "record"))
    if (out / "noise.csv").exists():
        console.print(f"The study in {out} is finished.", soft_wrap=True)
        return out
    if training is None:
        training = configs.TrainConfig(
            norms=config.norms,
            seeds=config.seeds,
            run_dir=str(out / "training"),
            resume="auto",
            optim=configs.OptimConfig(epochs=config.epochs),
        )
        train(training, console)
    dataset = load_arrays(training.data)
    trained = list(restored(config.trained or out / "training", dataset))
    protocol = Protocol(config.batch_size, config.calibration_batches, config.rate, config.dynamic)
    steps = [
        (kind, level) for kind in config.kinds for level in config.levels or KINDS[kind].levels
    ]
    rows: list[Row] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        chips = sum(_chips(kind, config) for kind, _ in steps)
        total = chips * len(training.norms) * len(training.seeds)
        task = progress.add_task("Measuring", total=total)
        for noisy in (False, True):
            mine = [(k, level) for k, level in steps if (KINDS[k].make is None) == noisy]
            for network in make_networks(trained, noisy) if mine else ():
                for kind, level in mine:
                    for chip in range(_chips(kind, config)):
                        rows += measure(network, kind, level, chip, dataset, protocol)
                        progress.advance(task)
    rows.sort(key=lambda row: config.kinds.index(row.kind))
    time_of = "a new draw per forward pass" if config.dynamic else "one draw per chip"
    title = f"{dataset.name}; {time_of}, n = {len(training.seeds)} networks x {config.chips} chips"
    with files.replacing(out / "noise.png") as path:
        noise_figure(rows, title).savefig(path, dpi=130)
    # Last: it says that the study is complete.
    files.write_csv(out / "noise.csv", Row._fields, rows)
    write_record(
        *(config.record, "noise", options_of(config, "run_dir", "record"), Row._fields, rows),
        title=title,
    )
    for table in noise_tables(rows).values():
        console.print(table)
    console.print(
        f"Mean test accuracy, % (sample standard deviation over networks and chips); {time_of}. "
        f"{time.perf_counter() - start:.0f} s in all."
    )
    console.print(f"Wrote {out / 'noise.png'} and {out / 'noise.csv'}.", soft_wrap=True)
    return out


def _chips(kind: str, config: NoiseConfig) -> int:
    """Return the number of chips to measure; where noise is not random all are alike."""
    return config.chips if KINDS[kind].random else 1


main = command("noise", NoiseConfig, study)


if __name__ == "__main__":
    sys.exit(main())
