"""Networks by name, and what reports call them; ``experiments.models`` has what they are."""

TITLES = {"preact": "Pre-activation ResNet", "resnet50": "ResNet-50", "resnet101": "ResNet-101"}
