"""What each benchmark can be told on the command line."""

import dataclasses
from pathlib import Path

from experiments.benchmarks import data, forms
from experiments.benchmarks.gpu.cases import GROUPS
from experiments.benchmarks.networks import RECIPES
from experiments.common.checks import check_choice, positive
from experiments.config.methods import check_norm
from experiments.config.probe import MEASURES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """What all have: where numbers go."""

    json: Path | None = None
    """File to write the numbers to, with versions and hardware; it must not exist."""


def _check_dtypes(dtypes: tuple[str, ...]) -> None:
    for name in dtypes:
        check_choice("dtypes", name, ("float32", "bfloat16", "float16"))


def _check_networks(networks: tuple[str, ...]) -> None:
    if not networks:
        raise ValueError("`networks` is empty; name one or more, or leave it out.")
    for name in networks:
        check_choice("networks", name, ("digits", *RECIPES))


def _check_norms(norms: tuple[str, ...]) -> None:
    for name in norms:
        check_norm(name)


@dataclasses.dataclass(frozen=True)
class Layer(Stored):
    """Time the layer against nn.BatchNorm, a naive layer and a x + b, on this device.

    All four take turns in one process; given are medians of the ratios of neighbours. Then, for
    each, the reads and writes of full arrays in the compiled program, and what reverse mode keeps
    for each convolution-normalization-ReLU.
    """

    seconds: float = 4.0
    """How long to measure each line, in seconds."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    """Dtypes of inputs and outputs."""
    passes: tuple[str, ...] = tuple(forms.PASSES)
    """What to time: forward, forward+backward."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(seconds=self.seconds)
        _check_dtypes(self.dtypes)
        for name in self.passes:
            check_choice("passes", name, tuple(forms.PASSES))


@dataclasses.dataclass(frozen=True)
class Tpu(Stored):
    """Compile conv-norm-relu-conv-norm-relu-conv for a TPU slice, and the same of Dense layers.

    Needs the TPU compiler (`pip install 'jax[tpu]'`) but no TPU; run it with JAX_PLATFORMS=cpu.
    Bytes accessed count every branch of a conditional that could run; guarded collectives are
    those in such branches.
    """

    topology: str = "v5e:16x16"
    """Name of the slice: generation and shape."""
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    """Dtypes of the activations."""
    images: tuple[tuple[int, int], ...] = ((28, 128), (14, 256))
    """Pairs of image height and channels; minutes each."""
    rows: tuple[tuple[int, int], ...] = ((4096, 1024),)
    """Pairs of rows per device and features."""
    per_device: int = 64
    """Images per device."""
    json: Path | None = None
    """File to write the numbers to, with versions; it must not exist."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(per_device=self.per_device)
        _check_dtypes(self.dtypes)
        if not (self.images or self.rows):
            raise ValueError("`images` and `rows` are both empty; name shapes for one of them.")
        for name in ("images", "rows"):
            for size in (size for pair in getattr(self, name) for size in pair):
                positive(**{name: size})


@dataclasses.dataclass(frozen=True)
class Gpu(Stored):
    """Compile layers, small networks and training steps for GPUs, and compare the programs.

    Needs the GPU compiler (`make gpu-compile`) but no GPU. For nn.BatchNorm, the unitized layer and
    none (alone: a x + b): kernels, reads and writes of full arrays, bytes, conditionals, and those
    that the host must wait for, and the compiler's model of the time. With --measure, on a machine
    with a GPU, also the time that they take, in turns.
    """

    cases: tuple[str, ...] = tuple(GROUPS)
    """Which: layer, chain (conv-norm-relu twice), others (more shapes of it), dense
    (Dense-norm-relu twice), resnet50, resnet110 (training steps, minutes each; all others
    together take two minutes)."""
    devices: tuple[int, ...] = (1,)
    """Numbers of GPUs of one machine; shapes are those of one GPU."""
    chip: str = "h100"
    """Chip to compile for, unless --measure says what is there."""
    measure: bool = False
    """Also time the programs, on the GPUs of this machine."""
    seconds: float = 2.0
    """How long to time each case, in seconds."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(seconds=self.seconds)
        for name in ("cases", "devices"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` is empty; name one or more, or leave it out.")
        for name in self.cases:
            check_choice("cases", name, tuple(GROUPS))
        for count in self.devices:
            positive(devices=count)


@dataclasses.dataclass(frozen=True)
class Probe(Stored):
    """Time the certified Earth Mover distance and the probe of internal covariate shift.

    First, the cost matrix given: ours, with its certificate, against scipy's
    linear_sum_assignment, POT's emd2 (both exact, in float64, without one), and OTT-JAX's Sinkhorn
    at the largest regularization that is within 1 %. Then what probing every few updates adds to
    training: the time of a measurement by itself, and the digits run of train with and
    without the probe, epochs in turns. Last, what the first call costs on ResNet-50, part by part.
    Needs the dependency group `bench`.
    """

    samples: tuple[int, ...] = (64, 256, 1024)
    """Samples on each side."""
    dimensions: tuple[int, ...] = (16, 256, 4096)
    """Dimensions."""
    drift: float = 0.01
    """Drift of each coordinate in one step, in standard deviations."""
    seconds: float = 3.0
    """How long to measure each pair, in seconds; for each second, 10 blocks of 5 epochs of the
    digits run, rounded up to whole runs."""
    images: int = 16
    """Images a probe looks at, in the measurement of its share of the training time."""
    image_size: int = 64
    """Pixels of a side of ResNet-50's images, in the measurement of the first call."""
    first_images: int = 64
    """How many it looks at there."""


@dataclasses.dataclass(frozen=True)
class Data(Stored):
    """Time each input pipeline against the training step that it feeds, on this device.

    The digits and CIFAR are in memory, and augmented on the device; ImageNet's JPEG files
    (synthetic here, of the true size and number of bytes) are read from records, decoded and
    cropped by threads. The step is that of a pre-activation ResNet with unitized batch
    normalization; or an accelerator is imitated, which takes time but none of the processor's.
    Needs the dependency group `data`.
    """

    cases: tuple[str, ...] = data.CASES
    """Which: digits, cifar, imagenet."""
    seconds: float = 5.0
    """How long to measure each number, in seconds; there are four for each case."""
    accelerators: tuple[float, ...] = (500.0, 1000.0)
    """Images per second of accelerators to imitate, for ImageNet."""


@dataclasses.dataclass(frozen=True)
class Seeds(Stored):
    """Time an update of several seeds in one program against one seed after another.

    The network and batch are those of train on the digits. On a processor there is
    little to gain: one small network fills it, and convolutions with several kernels are slow.
    """

    seeds: tuple[int, ...] = (2, 5)
    """Numbers of seeds."""
    norms: tuple[str, ...] = ("bn", "ubn")
    """Methods."""
    batch_sizes: tuple[int, ...] = (64,)
    """Images per update and seed."""
    seconds: float = 5.0
    """How long to measure each line, in seconds."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(seconds=self.seconds)
        _check_norms(self.norms)


@dataclasses.dataclass(frozen=True)
class Step(Stored):
    """Time whole updates of networks with each normalization against the one with `bn`, in turns.

    Augmentation and optimizer are included.
    The images are noise, but for the digits: an update takes as long whatever they show.
    """

    networks: tuple[str, ...] = ("digits", "resnet18")
    """Networks: digits (that of train), resnet18 and resnet110 (the paper's, on images
    of 32x32 pixels), resnet50 and resnet101 (224x224 pixels)."""
    norms: tuple[str, ...] = ("ubn", "affine", "none")
    """Methods besides bn; affine, a x + b alone, is the floor."""
    precisions: tuple[str, ...] = ("float32",)
    """Dtypes of the activations: float32, bfloat16."""
    batch_size: int = 128
    """Images per update."""
    seconds: float = 10.0
    """How long to measure each line, in seconds."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(batch_size=self.batch_size, seconds=self.seconds)
        _check_dtypes(self.precisions)
        _check_networks(self.networks)
        _check_norms(self.norms)


@dataclasses.dataclass(frozen=True)
class Eager(Stored):
    """Time calls outside jit against those of nn.BatchNorm, on arrays of a few hundred numbers.

    On arrays so small Python and dispatch are all that is timed.
    """

    seconds: float = 5.0
    """How long to measure each line, in seconds."""

    def __post_init__(self) -> None:
        """Check the value."""
        positive(seconds=self.seconds)


@dataclasses.dataclass(frozen=True)
class Compile(Stored):
    """Time how long updates take to trace and compile with each normalization, against `bn`'s.

    Each program is made anew in every round, with empty caches.
    """

    networks: tuple[str, ...] = ("digits", "resnet18", "resnet50")
    """Networks, as in step."""
    norms: tuple[str, ...] = ("ubn",)
    """Methods besides bn."""
    batch_size: int = 16
    """Images per update."""
    rounds: int = 5
    """How often each is compiled."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(batch_size=self.batch_size, rounds=self.rounds)
        _check_networks(self.networks)
        _check_norms(self.norms)


@dataclasses.dataclass(frozen=True)
class Measures(Stored):
    """Time a probe with each further measure of shift against the Earth Mover distance alone.

    Each measurement has both forward passes, and one measure more; an update of the same network,
    and two forward passes alone, are timed beside them. Networks have BatchNorm.
    """

    networks: tuple[str, ...] = ("digits", "resnet18")
    """Networks, as in step."""
    measures: tuple[str, ...] = tuple(name for name in MEASURES if name != "em")
    """Measures: moments, channels, mmd, kmm, gaussian, estimation, gradient."""
    batch_size: int = 64
    """Images per update."""
    images: tuple[int, ...] = (16,)
    """Images a probe looks at."""
    seconds: float = 10.0
    """How long to measure each line, in seconds; at least 15 rounds."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(batch_size=self.batch_size, seconds=self.seconds)
        _check_networks(self.networks)
        for name in self.measures:
            check_choice("measures", name, MEASURES)
        if not self.images:
            raise ValueError("`images` is empty; give one or more numbers, or leave it out.")
        for count in self.images:
            positive(images=count)


@dataclasses.dataclass(frozen=True)
class Augment(Stored):
    """Time whole updates with amplitude-phase recombination against those without, in turns.

    apr-p, apr-s and both, as --data.augment takes them. Networks have BatchNorm.
    """

    networks: tuple[str, ...] = ("digits", "resnet18")
    """Networks, as in step."""
    batch_size: int = 128
    """Images per update."""
    seconds: float = 10.0
    """How long to measure each line, in seconds; at least 15 rounds."""
