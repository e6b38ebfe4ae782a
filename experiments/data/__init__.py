"""Data sets by name: what ``--data.dataset`` accepts."""

from experiments.data.config import DATASETS as DATASETS
from experiments.data.config import DataConfig as DataConfig
from experiments.data.dataset import ArrayDataset as ArrayDataset
from experiments.data.dataset import Dataset as Dataset
from experiments.data.digits import load_digits
from experiments.data.pipeline import Batch as Batch
from experiments.data.pipeline import Pipeline as Pipeline


def load_dataset(config: DataConfig | str) -> Dataset:
    """Returns the data set that ``config`` describes; a name stands for its defaults."""
    if isinstance(config, str):
        config = DataConfig(dataset=config)
    if config.dataset == "digits":
        return load_digits(config)
    raise NotImplementedError
