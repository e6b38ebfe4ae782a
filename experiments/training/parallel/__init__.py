"""One training step on any devices: how it is mapped, and which of them share statistics."""

from experiments.config.parallel import DevicesConfig as DevicesConfig
from experiments.training.parallel.transform import Step as Step
from experiments.training.parallel.transform import Transform as Transform
from experiments.training.parallel.transform import make_transform as make_transform
