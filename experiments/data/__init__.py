"""Data sets by name: what ``--data.dataset`` accepts."""

from collections.abc import Callable

from experiments.data.digits import Dataset as Dataset
from experiments.data.digits import load_digits
from experiments.data.pipeline import Pipeline as Pipeline

DATASETS: dict[str, Callable[[], Dataset]] = {"digits": load_digits}


def check_dataset(name: str) -> None:
    """Raises ``ValueError`` naming the valid choices if no data set is called ``name``."""
    if name not in DATASETS:
        raise ValueError(f"dataset (={name!r}) is unknown; choose from {', '.join(DATASETS)}.")


def load_dataset(name: str) -> Dataset:
    """Returns the data set called ``name``, a key of ``DATASETS``."""
    check_dataset(name)
    return DATASETS[name]()
