"""From the bytes of an image file to RGB pixels; from RGB pixels to a square of a given size."""

import importlib
import io
import struct
from collections.abc import Iterable
from types import ModuleType

import numpy as np

_KINDS = {
    "1": "black and white",
    "L": "grayscale",
    "LA": "grayscale",
    "I": "16-bit",
    "F": "floating-point",
    "CMYK": "CMYK",
    "YCCK": "CMYK",
}
_PNG_END = b"IEND\xaeB`\x82"  # With its checksum.
_MOST_PIXELS = 100_000_000  # Of one image: 10,000 x 10,000, 300 MB.
# Where the customary evaluation on ImageNet crops 224 pixels of an image of 256.
EVAL_MARGIN = 32


class BadImageError(ValueError):
    """An image that cannot be used: damaged, not 8-bit RGB, of another size, or mislabelled."""


class BadImages:
    """What to do with images that cannot be used, and which they were; for several threads.

    Args:
        policy: ``"error"`` or ``"skip"``.
        reasons: Those known already.
    """

    def __init__(self, policy: str, reasons: Iterable[str] = ()) -> None:
        """Start with the known ones."""
        self.skips = policy == "skip"
        # A dictionary keeps each once, and their order.
        self._reasons = dict.fromkeys(reasons)

    def add(self, error: BadImageError) -> None:
        """Keep the reason, or raise it, with the way out, where the policy is ``"error"``."""
        if not self.skips:
            raise BadImageError(
                f"{error} To leave such images out and count them: --data.on-bad-image skip."
            ) from None
        self._reasons[str(error)] = None

    def add_known(self, reasons: Iterable[str]) -> None:
        """Add those that were found before, by a process that has ended."""
        self._reasons |= dict.fromkeys(reasons)

    def reasons(self) -> tuple[str, ...]:
        """Return why each cannot be used, every one once."""
        return tuple(self._reasons)


def need(module: str, group: str = "data") -> ModuleType:
    """Return a module of an optional dependency.

    Raises:
        ValueError: If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, and this data set needs it: "
            f"in the checkout, uv pip install --group {group}."
        ) from None
    except ImportError as error:  # A library of the system is missing, say.
        raise ValueError(f"{module} is installed, but cannot be imported: {error}.") from error


def decode_rgb(content: bytes, name: str, convert: bool, strict: bool = True) -> np.ndarray:
    """Return the pixels of a JPEG, PNG or WebP file.

    Orientation tags are ignored, as is customary in training; palettes are looked up.

    Args:
        content: The file's bytes.
        name: What errors call the image, with its file.
        convert: Whether to convert what is not 8-bit RGB: grayscale is repeated in each channel,
            CMYK goes to RGB without a colour profile, 16-bit values lose their lower byte, and an
            alpha channel is dropped.
        strict: Whether what decoders only warn of, or do not look at, is an error: JPEG data that
            are corrupt though they end as they should, PNG checksums, and more pixels than fit.

    Returns:
        ``(h, w, 3)`` uint8.

    Raises:
        BadImageError: If the file is damaged or truncated, or not 8-bit RGB and ``convert`` is off.
    """
    cv2 = need("cv2")
    data = np.frombuffer(content, np.uint8)
    image: np.ndarray | None
    if strict or not convert:
        kind, mode = inspect(content, name)
        if not convert:
            _check_mode(mode, name)
        if strict and kind == "JPEG":
            image = _decode_jpeg(content, name, mode)
            if mode in ("RGB", "L"):
                return image
    if convert:
        image = _decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    else:
        image = _decode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImageError(f"{name} is damaged or truncated ({len(content):,} bytes).")
    if convert:
        return image
    if image.dtype != np.uint8:
        raise _not_rgb(name, "16-bit")
    if image.shape[2:] != (3,):
        raise _not_rgb(name, "grayscale" if image.ndim == 2 else "an image with an alpha channel")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_gray(content: bytes, name: str) -> np.ndarray:
    """Return the pixels of a grayscale JPEG or PNG file, ``(h, w, 1)`` uint8.

    Raises:
        BadImageError: If the file is damaged or truncated, or not 8-bit grayscale.
    """
    cv2 = need("cv2")
    kind, mode = inspect(content, name)
    if kind == "JPEG":
        _decode_jpeg(content, name, mode)
    image = _decode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImageError(f"{name} is damaged or truncated ({len(content):,} bytes).")
    if image.ndim != 2 or image.dtype != np.uint8:
        raise BadImageError(f"{name} is not 8-bit grayscale, as it must be.")
    return image[:, :, None]


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    """Return None for anything that cannot be decoded to the end."""
    cv2 = need("cv2")
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:  # Of an empty file, or sizes beyond all limits.
        return None


def inspect(content: bytes, name: str) -> tuple[str, str]:
    """Return format ("JPEG", "PNG", ...) and mode ("RGB", "L", ...) as Pillow calls them.

    Raises:
        BadImageError: If the header cannot be read, or says that there are more pixels than an
            image may have; if checksums of a PNG file do not fit what they are of.
    """
    image_module = need("PIL.Image")
    too_large = (image_module.DecompressionBombError, image_module.DecompressionBombWarning)
    try:
        with image_module.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise image_module.DecompressionBombError
            if image.format == "PNG":
                image.verify()
                if _PNG_END not in content:  # Pillow does not look at the last checksum.
                    raise ValueError("no end")
            return str(image.format), image.mode
    except too_large:
        raise BadImageError(
            f"{name} has more than {_MOST_PIXELS:,} pixels, and is not decoded: it would not fit "
            "in memory, or its header is damaged. Make it smaller."
        ) from None
    except (OSError, ValueError, SyntaxError, struct.error):
        raise BadImageError(f"{name} is damaged or truncated ({len(content):,} bytes).") from None


def _decode_jpeg(content: bytes, name: str, mode: str) -> np.ndarray:
    """Return RGB pixels, those of CMYK images as they are; what libjpeg warns of is an error."""
    simplejpeg = need("simplejpeg")
    try:
        return simplejpeg.decode_jpeg(content, "CMYK" if mode == "CMYK" else "RGB", strict=True)
    except ValueError as error:
        raise BadImageError(
            f"{name} is damaged or truncated ({len(content):,} bytes). The decoder: {error}."
        ) from None


def _check_mode(mode: str, name: str) -> None:
    """Raise for images that OpenCV would convert without a word."""
    if mode not in ("RGB", "P"):
        kind = _KINDS.get(mode.split(";")[0])
        raise _not_rgb(name, kind or f"an image of mode {mode}")


def _not_rgb(name: str, kind: str) -> BadImageError:
    return BadImageError(
        f"{name} is {kind}, but must be 8-bit RGB; --data.convert-images converts such images."
    )


def check_label(label: int, num_classes: int, name: str) -> int:
    """Return ``label`` if it is one of ``num_classes``.

    Raises:
        BadImageError: If not.
    """
    if not 0 <= label < num_classes:
        raise BadImageError(
            f"{name} has label {label}, but must have one from 0 to {num_classes - 1}."
        )
    return int(label)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image scaled to ``(size, size, c)``.

    It is halved by averaging while it is at least twice as large, then bilinear: as free of
    aliasing as averaging at once, at a fraction of the time.
    """
    cv2 = need("cv2")
    while min(image.shape[:2]) >= 2 * size:
        h, w = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def center_crop(image: np.ndarray, size: int, margin: int = 0) -> np.ndarray:
    """Return the middle square, scaled to ``size``.

    Args:
        image: ``(h, w, c)``.
        size: Side of the result, pixels.
        margin: Pixels, in the scale of the result, that the shorter side is longer than the square;
            0 is the largest square.
    """
    h, w = image.shape[:2]
    side = max(1, round(min(h, w) * size / (size + margin)))
    top, left = (h - side) // 2, (w - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def random_resized_crop(rng: np.random.Generator, image: np.ndarray, size: int) -> np.ndarray:
    """Return a random part of the image, scaled to ``size``: that of Inception.

    Its area is a uniformly random part, 8 to 100 %, of the image's; its aspect ratio (width /
    height) is between 3/4 and 4/3, uniform in the logarithm. After ten parts that do not fit, the
    largest in the middle of a ratio within these limits is taken.

    Args:
        rng: Source of the random numbers.
        image: ``(h, w, c)``.
        size: Side of the result, pixels.

    References:
        C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015,
        https://arxiv.org/abs/1409.4842.
    """
    h, w = image.shape[:2]
    areas = h * w * rng.uniform(0.08, 1.0, 10)
    ratios = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 10))
    for area, ratio in zip(areas.tolist(), ratios.tolist(), strict=True):
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < width <= w and 0 < height <= h:
            break
    else:
        width, height = min(w, round(h * 4 / 3)), min(h, round(w * 4 / 3))
        top, left = (h - height) // 2, (w - width) // 2
        return resize(image[top : top + height, left : left + width], size)
    top, left = rng.integers(h - height + 1), rng.integers(w - width + 1)
    return resize(image[top : top + height, left : left + width], size)
