"""ResNet-164 on CIFAR-10 in 15 epochs, one cycle of the learning rate: NOT the authors' schedule.

The network, data and penalty of ``cifar10_resnet164``; the schedule is
``recipes.short``, for small machines.

Command, once the data are there (python -m experiments prepare cifar10):
    python -m experiments train cifar10_resnet164_short
Its family: --norms bn ubn gn none; --norm.unit sample (or rms, position).
With the images in folders, train/CLASS/ and test/CLASS/:
    --data.dataset imagefolder --data.data-dir FOLDER

Expected: not yet measured.
Time: not yet measured.
"""

from experiments.configs.recipes import authors, short

CONFIG = short(authors("cifar10", blocks=18, bottleneck=True, batch_size=64), learning_rate=0.1)
