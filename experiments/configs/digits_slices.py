"""Statistics of 2 images: BN of slices against GN and Kalman, on the digits.

The batch of 64 is cut into slices of consecutive images, as if each were on a device of its own:
bn-slices is batch normalization of each slice; kalman combines each slice's moments with those
predicted from the layer before; kalman-published predicts as the authors' code does; gn knows no
batch; bn, with the statistics of the whole batch, is what a slice cannot know. Running statistics
of bn-slices and kalman follow the first slice, as in the authors' code.

Command; the data are scikit-learn's:
    python -m experiments train digits_slices
Its family: --norm.slice-size 4; --norm.gain 0.2, the weight of a slice's own moments; and with
--data.dataset cifar10 the setting of the paper.

Expected: all end at about 99 % test accuracy (seeds 0, 1 and 2); in training, cross-entropy ends at
0.41 nats with bn-slices, 0.05 with kalman-published, 0.04 with gn, 0.03 with kalman and 0.02 with
bn. On CIFAR-10 the authors' curves end at about 8.7 % error for BN, 8.5 % for GN and 7.6 %
for Kalman; not yet measured here.
Time: about a minute per seed on two CPU cores.
"""

from experiments.config.experiment import NormConfig, TrainConfig
from experiments.configs.recipes import SEEDS

CONFIG = TrainConfig(
    norms=("bn-slices", "gn", "kalman", "kalman-published", "bn"),
    seeds=SEEDS,
    norm=NormConfig(slice_size=2, gain=0.1),
)
