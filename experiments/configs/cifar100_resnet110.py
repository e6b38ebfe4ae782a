"""ResNet-110 on CIFAR-100, as the authors train it: 200 epochs.

Pre-activation ResNet-110 (18 basic blocks per stage, widths 16, 32, 64), batch 128; the recipe,
and in what it is not the authors', is told in ``recipes.authors``.

Command, once the data are there (python -m experiments prepare cifar100):
    python -m experiments train cifar100_resnet110
Its family: --norms bn ubn gn none; --norm.unit sample (or rms, position); and
--data.scaling pixel-variance for the authors' scaling. Each unit is a run of its own, all with
the same seeds: python -m experiments compare RUN... puts them together.
With the images in folders, train/CLASS/ and test/CLASS/:
    --data.dataset imagefolder --data.data-dir FOLDER

Expected: not yet measured here; the paper's tables were not at hand.
Time: not yet measured. 2,000 epochs in all (5 seeds, 2 methods): meant for an accelerator.
"""

from experiments.configs.recipes import authors

CONFIG = authors("cifar100", blocks=18)
