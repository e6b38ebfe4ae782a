"""Networks of the experiments; normalization and convolution are arguments."""

from experiments.models.preact_resnet import PreActResNet as PreActResNet
from experiments.models.preact_resnet import resnet8 as resnet8
from experiments.models.preact_resnet import resnet18 as resnet18
from experiments.models.preact_resnet import resnet110 as resnet110
from experiments.models.preact_resnet import resnet164 as resnet164
