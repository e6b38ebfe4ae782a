"""Elimination singularities of a run: ``python -m experiments singularities RUN_FOLDER``.

A channel whose ReLU is off for every image has no gradient and stays so. For each norm and seed of
a finished run, this counts such channels over the test images, and measures how near the others
are: |mean| / standard deviation of what goes into each ReLU. Batch normalization keeps that near 0
(the bias aside), normalizations within a sample do not.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from experiments.common.cli import command
from experiments.common.output_folder import options_of
from experiments.common.table import Column, Table
from experiments.data import Dataset, load_dataset
from experiments.studies.record import write_record
from experiments.training.program import EVAL_BATCH
from experiments.training.restored import Restored, read_config, restored
from unitnorm_jax.contrib.batch_channel_norm import LayerActivity, elimination_singularities


@dataclasses.dataclass(frozen=True)
class SingularitiesConfig:
    """Count the dead channels of a run's networks, over the test images."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that train wrote."""
    layers: bool = False
    """A row for every layer, instead of one for every network."""
    record: Path | None = None
    """Folder for singularities.json, what the pages show: experiments/results."""


class Network(NamedTuple):
    """One norm and seed of a run.

    Attributes:
        norm: Name of the norm.
        seed: The seed.
        layers: Its layers, from input to output.
    """

    norm: str
    seed: int
    layers: list[LayerActivity]


def diagnose(run_folder: Path, console: Console) -> list[Network]:
    """Look at the final checkpoint of every norm and seed of a run.

    Raises:
        ValueError: If the folder is not that of a finished run, or a checkpoint is damaged.
    """
    config = read_config(run_folder)
    dataset = load_dataset(config.data)
    found = track(
        restored(run_folder, dataset),
        "Networks",
        total=len(config.norms) * len(config.seeds),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    return [Network(one.norm, one.seed, activities_of(one, dataset)) for one in found]


def activities_of(network: Restored, dataset: Dataset) -> list[LayerActivity]:
    """Return how near to elimination the channels are, at each of the network's norms."""

    def wanted(module: Any, method: str) -> bool:
        return method == "__call__" and module.path in network.program.layers

    return elimination_singularities(
        network.program.model, network.variables, _inputs(dataset), layers=wanted, train=False
    )


def _inputs(dataset: Dataset) -> Iterator[jax.Array]:
    for batch in dataset.test_batches(EVAL_BATCH):
        yield dataset.standardize(batch["image"])[: int(np.sum(batch["weight"]))]


def table(networks: list[Network], by_layer: bool) -> Table:
    """Return one row for every network or, ``by_layer``, for every layer of it."""
    rows: list[tuple[Any, ...]] = []
    for network in networks:
        groups = [[layer] for layer in network.layers] if by_layer else [network.layers]
        for group in groups:
            ratios = np.concatenate([layer.mean_to_std for layer in group])
            # A NaN is the worst of all, and shows.
            worst = max(group, key=lambda layer: (np.isnan(layer.worst), layer.worst))
            where = worst.layer if by_layer else f"all; largest in {worst.layer}"
            counts = (sum(x.channels for x in group), sum(x.dead for x in group))
            ends = (f"{np.median(ratios):.2f}", f"{np.max(ratios):.2f}")
            rows.append((network.norm, network.seed, where, *counts, *ends))
    return table_of(rows)


def table_of(rows: Sequence[Sequence[Any]]) -> Table:
    """Return the table of these rows."""
    columns = (
        *(Column("norm"), Column("seed"), Column("layer")),
        *(Column("channels", "{:.0f}"), Column("dead", "{:.0f}")),
        *(Column("median |mean| / std", "{}"), Column("largest", "{}")),
    )
    caption = "dead: channels whose ReLU is off for every image; they have no gradient"
    title = "What goes into the ReLUs, over the test images"
    return Table("singularities", title, caption, columns, [tuple(row) for row in rows])


def _run(config: SingularitiesConfig, console: Console) -> None:
    found = table(diagnose(config.run_folder, console), config.layers)
    if config.record is not None:
        training = read_config(config.run_folder)
        write_record(
            *(config.record, "singularities", options_of(training, "run_dir", "mirror")),
            *([column.name for column in found.columns], found.rows),
        )
    console.print(found)


main = command("singularities", SingularitiesConfig, _run)


if __name__ == "__main__":
    sys.exit(main())
