"""Configuration of a training job: frozen dataclasses, checked when made.

The docstring under each field is its help on the command line.
"""

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from experiments.common.checks import check_choice, check_seeds, fits, not_negative, positive
from experiments.config.data import DataConfig as DataConfig
from experiments.config.methods import SLICED, check_norm
from experiments.config.methods import NormConfig as NormConfig
from experiments.config.networks import TITLES
from experiments.config.parallel import DevicesConfig as DevicesConfig
from experiments.config.probe import ProbeConfig as ProbeConfig

Schedule = Literal["cosine", "one-cycle", "piecewise"]
Network = Literal["preact", "resnet50", "resnet101"]
Resume = Literal["never", "auto", "must"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network; blocks and widths, one entry per stage, are of preact alone."""

    name: Network = "preact"
    """preact (pre-activation ResNet for small images), resnet50 or resnet101 (for ImageNet)."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of each stage; 3 3 3 is the paper's ResNet-18, 18 18 18 its 110."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of each stage."""
    bottleneck: bool = False
    """Bottleneck blocks (1x1, 3x3, 1x1; four times the width out) instead of basic ones."""
    skip: bool = True
    """Skip connections around the blocks; without them, a plain network of the same layers."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("network", self.name, TITLES)
        if len(self.blocks) != len(self.widths) or not self.blocks:
            raise ValueError(
                f"`blocks` (={self.blocks}) and `widths` (={self.widths}) must have the same "
                "number of entries, one per stage."
            )
        for block, width in zip(self.blocks, self.widths, strict=True):
            positive(blocks=block, widths=width)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """SGD with momentum, and the schedule of its learning rate."""

    epochs: int = 15
    """Passes over the training images."""
    batch_size: int = 64
    """Images per update; the incomplete last batch of an epoch is left out."""
    learning_rate: float = 0.1
    """Largest learning rate, at the end of the warm-up."""
    schedule: Schedule = "cosine"
    """After the warm-up: cosine (linear warm-up from 0, cosine decay to 0), one-cycle (both cosine,
    from 1/25 of the largest rate and to 1/10,000 of that), or piecewise (linear warm-up; then
    constant, times DECAY_RATE at each of BOUNDARIES)."""
    warmup: float = 0.2
    """Warm-up, as a fraction of all updates."""
    boundaries: tuple[int, ...] = ()
    """Epochs, counted from 0, at whose start the learning rate of piecewise drops."""
    decay_rate: float = 0.2
    """What piecewise multiplies the learning rate with at each boundary."""
    momentum: float = 0.9
    """Momentum, in [0, 1)."""
    nesterov: bool = True
    """Nesterov's momentum."""
    weight_penalty: float = 5e-4
    """Factor of the sum of squared kernels in the loss (no factor 1/2)."""
    label_smoothing: float = 0.0
    """Share of each label spread over all classes, in [0, 1)."""
    accumulate: int = 1
    """Micro-batches per update, one after the other: less memory. Each has batch statistics of its
    own; what bn and ubn do then depends on it."""

    def __post_init__(self) -> None:
        """Check the values."""
        positive(epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate)
        positive(accumulate=self.accumulate)
        not_negative(weight_penalty=self.weight_penalty)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` (={self.label_smoothing}) must be in [0, 1).")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` (={self.momentum}) must be in [0, 1).")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"`warmup` (={self.warmup}) must be in [0, 1).")
        check_choice("schedule", self.schedule, get_args(Schedule))
        if self.schedule == "one-cycle" and self.warmup == 0:
            raise ValueError("`warmup` (=0.0) must be positive for one-cycle; 0.3 is customary.")
        positive(decay_rate=self.decay_rate)
        if list(self.boundaries) != sorted({b for b in self.boundaries if b > 0}):
            raise ValueError(
                f"`boundaries` (={self.boundaries}) must be epochs above 0 in ascending order."
            )
        if self.boundaries and self.schedule != "piecewise":
            raise ValueError(
                f"`boundaries` (={self.boundaries}) are of --optim.schedule piecewise alone; "
                f"`schedule` is {self.schedule!r}."
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train the same network with each normalization, from the same initial weights.

    For each seed all norms start from the same convolution and dense weights and see the same
    images in the same order. Everything is written to a new run folder.
    """

    norms: tuple[str, ...] = ("bn", "ubn")
    """Methods to compare. With statistics of the batch: bn, ubn, bcn (batch-channel), bcn-micro
    (the same with running estimates), ic (with dropout, before every convolution; ic-conv-relu and
    conv-relu-ic are its other orders). Of slices of the batch: bn-slices, kalman, kalman-published
    (predicts as the authors' code does). Of the sample: gn, ln, in, rms. With constants: normprop.
    And none, or affine (scale and bias alone). With other weights, where they leave them alone:
    gn+ws (weight standardization; without a norm it diverges), none+wn (weight normalization) and
    so on; none+enorm, bn+enorm, ubn+enorm (weights balanced after updates)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each gives initial weights, data order and augmentation."""
    run_dir: str | None = None
    """Run folder; must not exist, but see --resume. Default: runs/DATASET-DATE-TIME."""
    resume: Resume = "never"
    """never: start a new run; auto: continue the run in --run-dir if there is one, else start it
    (what a scheduler should repeat); must: continue it, or fail."""
    mirror: str | None = None
    """Address that fsspec knows, such as gs://BUCKET/RUN, to copy the run folder to after every
    checkpoint; with --resume auto, a machine without the folder goes on from there."""
    grace_seconds: float = 30.0
    """Time to save after SIGTERM, SIGINT (Ctrl-C) or SIGHUP; give less than the scheduler gives
    before it kills. The exit status is then 128 plus the signal's number: 143, 130 or 129."""
    on_usr1: Literal["save", "stop"] = "save"
    """What SIGUSR1 does, which Slurm can send as a notice: save and go on, or stop as SIGTERM does
    (status 138). Several processes always stop."""
    max_seconds: float | None = None
    """Save and stop after so many seconds, with status 0: for machines lent by the
    minute. The same command with --resume auto goes on."""
    log_seconds: float = 30.0
    """Seconds between two lines that say how far training is, where there is no terminal."""
    profile: int = 0
    """Updates to trace with JAX's profiler, into the folder profile of the run folder; 0: none."""
    seeds_together: bool = False
    """Train all seeds of a norm in one program (vmap), spread over the devices: for accelerators,
    which one small network does not fill. A run's time per step is then its share."""
    target_accuracy: float = 0.97
    """Test accuracy, in (0, 1], for which the number of updates is reported."""
    evals_per_epoch: int = 2
    """Evaluations on all test images per epoch."""
    checkpoint_every: int = 5
    """Epochs between checkpoints; the final state is always saved."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, besides that of the best test accuracy."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    norm: NormConfig = NormConfig()
    optim: OptimConfig = OptimConfig()
    probe: ProbeConfig = ProbeConfig()
    devices: Annotated[DevicesConfig, tyro.conf.arg(name="")] = DevicesConfig()

    def __post_init__(self) -> None:
        """Check the values."""
        for name in self.norms:
            check_norm(name)
            self._check_slices(name)
        for field, values in {"norms": self.norms, "seeds": self.seeds}.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"`{field}` (={values}) must be one or more different values.")
        check_seeds(seeds=self.seeds)
        if not 0 < self.target_accuracy <= 1:
            raise ValueError(f"`target_accuracy` (={self.target_accuracy}) must be in (0, 1].")
        positive(evals_per_epoch=self.evals_per_epoch, checkpoint_every=self.checkpoint_every)
        positive(grace_seconds=self.grace_seconds, keep_checkpoints=self.keep_checkpoints)
        positive(log_seconds=self.log_seconds)
        not_negative(profile=self.profile)
        if self.max_seconds is not None:
            positive(max_seconds=self.max_seconds)
        alone = self.devices.parallel in ("auto", "jit") and self.devices.num_devices is None
        if self.seeds_together and not (alone and self.devices.statistics == "synchronised"):
            raise ValueError(
                "`seeds_together` spreads seeds over the devices, not batches: leave out "
                "--parallel, --num-devices and --statistics, or train seed by seed."
            )
        check_choice("resume", self.resume, get_args(Resume))
        if self.resume != "never" and self.run_dir is None:
            raise ValueError(
                f"`resume` (={self.resume!r}) needs `run_dir`: which run is it? Give --run-dir."
            )

    def _check_slices(self, norm: str) -> None:
        size, batch_size = self.norm.slice_size, self.optim.batch_size
        if norm.partition("+")[0] in SLICED and size is not None and batch_size % size:
            raise ValueError(
                f"`slice_size` (={size}) must divide `batch_size` (={batch_size}) with {norm}; "
                "change --norm.slice-size or --optim.batch-size."
            )


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return ``config`` as nested dictionaries, for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Return the configuration that ``to_dict`` gave, also after a round through JSON.

    Raises:
        ValueError: If a field is unknown or a value is not valid.

    Example:
        >>> from_dict({"seeds": [7], "optim": {"epochs": 3}}).optim.epochs
        3
    """
    return construct(TrainConfig, values)


def construct(cls: type, values: dict[str, Any], where: str = "") -> Any:
    """Return a dataclass of options from its values, those of groups of options by name.

    Args:
        cls: The class; every group has a default.
        values: Lists for tuples, as they come from JSON; what is missing is as by default.
        where: What names begin with in an error.

    Raises:
        ValueError: If a field is unknown or a value is not valid.
    """
    if not isinstance(values, dict):
        raise ValueError(
            f"field (={where.removesuffix('.') or 'all'!r}) must be a dictionary of options, but "
            f"is {values!r}; restore the configuration from a copy."
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls, include_extras=True)
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise ValueError(
            f"field (={where + unknown[0]!r}) is unknown; choose from "
            f"{', '.join(where + name for name in fields)}."
        )
    arguments = {}
    for name, value in values.items():
        default = fields[name].default
        if dataclasses.is_dataclass(default):
            value = construct(type(default), value, where=f"{where}{name}.")
        elif not fits(value := tuple(value) if isinstance(value, list) else value, hints[name]):
            raise ValueError(
                f"field `{where}{name}` (={value!r}) is not of the type of that option; restore "
                "the configuration from a copy."
            )
        arguments[name] = value
    return cls(**arguments)
