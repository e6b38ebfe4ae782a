"""ResNet-18 on CIFAR-10 in 15 epochs, one cycle of the learning rate: NOT the authors' schedule.

The network, data and penalty of ``cifar10_resnet18``; the schedule is
``recipes.short``, for small machines.

Command, once the data are there (python -m experiments prepare cifar10):
    python -m experiments train cifar10_resnet18_short
Its family: --norms bn ubn gn none; --norm.unit sample (or rms, position).
With the images in folders, train/CLASS/ and test/CLASS/:
    --data.dataset imagefolder --data.data-dir FOLDER

Expected: not yet measured on all images. On 5,000 of them in 10 epochs (--data.train-images 5000
--optim.epochs 10 --seeds 0 1 2) test accuracy is 59.8 +- 1.7 % with bn, 57.0 +- 1.3 % with ubn and
60.2 +- 1.1 % with ubn, --norm.unit rms: see experiments/results/cifar10_short.json.
Time: an update of 128 images takes 0.63 s on 2 cores of an AMD EPYC, so 1.0 hour per seed and
method there.
"""

from experiments.configs.recipes import authors, short

CONFIG = short(authors("cifar10", blocks=3))
