"""One training step on any devices: how it is mapped, and which of them share statistics."""

from experiments.parallel.config import DevicesConfig as DevicesConfig
from experiments.parallel.transform import Step as Step
from experiments.parallel.transform import Transform as Transform
from experiments.parallel.transform import make_transform as make_transform
