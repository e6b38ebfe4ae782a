"""ResNet-50 on ImageNet, by the customary recipe: 100 epochs.

Post-activation ResNet-50, batch 1,024, bfloat16, label smoothing 0.1: ``recipes.imagenet``. The
authors' ImageNet code is unpublished, so this is not theirs.

Command, once the data are there (python -m experiments prepare imagenet2012):
    python -m experiments train imagenet_resnet50
Its family: --norms bn ubn gn none; --norm.unit sample (or rms, position). With another
--optim.batch-size give --optim.learning-rate too, 0.1 for each 256 images.
What it takes of a pod, without one: python -m experiments pod_check --model resnet50

Expected: not yet measured here.
Time: not yet measured. 1,000 epochs in all (5 seeds, 2 methods): meant for a pod.
"""

from experiments.configs.recipes import imagenet

CONFIG = imagenet("resnet50")
