"""Trains the same network with each normalization: ``python -m experiments train --help``.

With its defaults, this compares BatchNorm and UnitizedBatchNorm on scikit-learn's digits with
three seeds in about a minute on two CPU cores; both reach about 99 % test accuracy. Digits show
that everything works, not that a method is better: small networks without any norm do as well.
How one update comes about, in six files: ``experiments/training/__init__.py``.
"""

import os
import sys
from collections.abc import Sequence

from experiments.common.cli import run_cli
from experiments.common.console import CommandConsole
from experiments.common.interrupt import ends_at_once
from experiments.common.progress import Progress
from experiments.config.experiment import TrainConfig
from experiments.config.useful import check_useful
from experiments.configs import choose

# What --help lists; --help-all has the rest.
USUAL = (
    *("norms", "seeds", "run_dir", "resume"),
    *("data.dataset", "data.data_dir", "data.train_images"),
    *("model.name", "model.blocks", "norm.unit", "norm.alpha_init"),
    *("optim.epochs", "optim.batch_size", "optim.learning_rate"),
    *("probe.every", "precision"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        chosen = choose(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_cli(
        "python -m experiments train" + (f" {chosen.name}" if chosen.name else ""),
        TrainConfig,
        chosen.arguments,
        _train,
        usual=USUAL,
        default=chosen.config,
        description=chosen.card,
        check=lambda config: check_useful(config, chosen.config),
    )


def _train(config: TrainConfig) -> None:
    console = CommandConsole()
    console.quiet = console.quiet or _is_another_process(config)
    with Progress(console, config.log_seconds) as progress:
        if "jax" not in sys.modules:
            progress.phase("Loading JAX")
        with ends_at_once():
            from experiments.training.job import run  # takes seconds: --help need not wait for it

        run(config, console, progress)


def _is_another_process(config: TrainConfig) -> bool:
    """Return whether others tell, as far as is known before the processes have met."""
    index: int | str | None = config.devices.process_id
    if index is None and config.devices.distributed == "auto":
        names = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
        index = next((os.environ[name] for name in names if name in os.environ), None)
    return index is not None and int(index) != 0


if __name__ == "__main__":
    sys.exit(main())
