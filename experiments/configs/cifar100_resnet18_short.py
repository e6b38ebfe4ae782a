"""ResNet-18 on CIFAR-100 in 15 epochs, one cycle of the learning rate: NOT the authors' schedule.

The network, data and penalty of ``cifar100_resnet18``; the schedule is
``recipes.short``, for small machines.

Command, once the data are there (python -m experiments prepare cifar100):
    python -m experiments train cifar100_resnet18_short
Its family: --norms bn ubn gn none; --norm.unit sample (or rms, position).
With the images in folders, train/CLASS/ and test/CLASS/:
    --data.dataset imagefolder --data.data-dir FOLDER

Expected: not yet measured.
Time: an update of 128 images takes 0.63 s on 2 cores of an AMD EPYC, so 1.0 hour per seed and
method there.
"""

from experiments.configs.recipes import authors, short

CONFIG = short(authors("cifar100", blocks=3))
