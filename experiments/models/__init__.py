"""Networks of the experiments; normalization and convolution are arguments."""

from experiments.models.ic_resnet import ICResNet as ICResNet
from experiments.models.kalman_resnet import KalmanResNet as KalmanResNet
from experiments.models.preact_resnet import ModuleDef as ModuleDef
from experiments.models.preact_resnet import PreActResNet as PreActResNet
from experiments.models.preact_resnet import resnet18 as resnet18
from experiments.models.preact_resnet import resnet110 as resnet110
from experiments.models.preact_resnet import resnet164 as resnet164
from experiments.models.resnet import ResNet as ResNet
from experiments.models.resnet import resnet50 as resnet50
from experiments.models.resnet import resnet101 as resnet101

# What ``--model.name`` accepts; blocks and widths of the first are options of their own.
NETWORKS: dict[str, ModuleDef] = {
    "preact": PreActResNet,
    "resnet50": resnet50,
    "resnet101": resnet101,
}
