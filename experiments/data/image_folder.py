"""The user's own images: ``FOLDER/{train,test}/CLASS/*.{jpg,png,webp}``, decoded once."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich
from rich.progress import track

from experiments.common.checks import local_path
from experiments.config.data import DataConfig
from experiments.data.array_cache import Writer, cache_root, limit_size, open_cache
from experiments.data.dataset import ArrayDataset
from experiments.data.images import BadImageError, BadImages, center_crop, decode_rgb, need
from experiments.data.scaling import make_scaling, pixel_moments

SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
# What archives and file managers leave beside images.
_LEFT_BEHIND = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_FORMAT = 2  # Of the decoded images; part of their key.
_CHUNK = 256  # Images that are decoded before they are written.


class Listing(NamedTuple):
    """What is in an image folder.

    Attributes:
        classes: Names of the classes, sorted: a class's place is its label. Names that are the
            same text in other code points (NFC, NFD) are one class.
        files: Files of each split, sorted.
        bad: Why what is named like an image is none: folders, dangling links, impossible names.
        ignored: What is not named like an image, by kind, counted.
    """

    classes: list[str]
    files: dict[str, list[Path]]
    bad: list[BadImageError]
    ignored: Counter[str]


def load_image_folder(config: DataConfig) -> ArrayDataset:
    """Return the images of ``config.data_dir``, decoded, in files that are mapped into memory.

    Those files are outside the image folder. Their name is a hash of the names and contents of all
    images and of the options that matter: after any change, all are decoded again.

    Raises:
        ValueError: If a class or split is missing or empty, the decoded images cannot be written,
            or an image cannot be used and ``config.on_bad_image`` is ``"error"``.
    """
    root = local_path("data_dir", str(config.data_dir))
    listing = list_images(root)
    bad = BadImages(config.on_bad_image)
    for error in listing.bad:
        bad.add(error)
    cache = cache_root(config.cache_dir) / _key(root, listing, config)
    arrays, notes = open_cache(cache, lambda writer: _decode_all(listing, config, writer))
    bad.add_known(notes["bad_images"])
    limit_size(cache, config.cache_gigabytes)
    train, test = arrays["train_images"], arrays["test_images"]
    h, w = train.shape[1:3]
    mean, var = arrays["train_moments"]
    return ArrayDataset(
        name=f"{root.name} ({len(train):,} training and {len(test):,} test images, {h}x{w})",
        num_classes=len(listing.classes),
        classes=tuple(listing.classes),
        notes=_notes(root, listing),
        scaling=make_scaling(config.scaling, mean, var, str(root)),
        flip=config.flip is not False,
        max_shift=min(h, w) // 8 if config.max_shift is None else config.max_shift,
        bad=bad,
        train_images=train,
        train_labels=np.asarray(arrays["train_labels"]),
        test_images=test,
        test_labels=np.asarray(arrays["test_labels"]),
    )


def list_images(root: Path) -> Listing:
    """Return the images of a folder; names that begin with a dot are passed over.

    Sub-folders of a class, and files of other kinds, are counted and not used.

    Raises:
        ValueError: If a split, a class of one of them, or a class's images are missing.
    """
    shape = "an image folder has train/CLASS/ and test/CLASS/ with jpg, png or webp files"
    classes: dict[str, dict[str, list[Path]]] = {}
    ignored: Counter[str] = Counter()
    for split in SPLITS:
        if not (root / split).is_dir():
            raise ValueError(f"{root / split} is missing: {shape}.")
        classes[split] = _class_folders(root / split, ignored)
        if not classes[split]:
            raise ValueError(f"{root / split} is empty, it has no class folders: {shape}.")
    for split, other in (("test", "train"), ("train", "test")):
        missing = sorted(set(classes[other]) - set(classes[split]))
        if missing:
            raise ValueError(
                f"class folder {root / split / missing[0]} is missing: {len(missing)} of the "
                f"classes in {root / other} are not in {root / split}. Both must have the same."
            )
    for path in root.iterdir():
        if path.name not in SPLITS and not path.name.startswith("."):
            ignored[_shown(Path(path.name)) + " beside train and test"] += 1
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    bad: list[BadImageError] = []
    for split in SPLITS:
        for folders in classes[split].values():
            found = sorted(path for folder in folders for path in _images(folder, bad, ignored))
            if not found:
                raise ValueError(
                    f"class folder {folders[0]} is empty: it has no {', '.join(SUFFIXES)} file."
                    + (f" {bad[-1]}" if bad else "")
                )
            files[split].extend(found)
    return Listing(list(classes["train"]), files, bad, ignored)


def class_name(folder: Path) -> str:
    """Return the class of a folder: its name, composed (NFC), as people read it."""
    return unicodedata.normalize("NFC", folder.name)


def _class_folders(split: Path, ignored: Counter[str]) -> dict[str, list[Path]]:
    """Return the folders of each class, classes sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(split.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"class folder {_shown(path)} is a link to a folder that is not there."
            )
        if not path.is_dir() or path.name in _LEFT_BEHIND:
            ignored[path.name if path.name in _LEFT_BEHIND else "file outside of a class"] += 1
            continue
        if not _is_text(path.name):
            raise ValueError(
                f"class folder {_shown(path)} has a name that is no UTF-8 text; rename it."
            )
        found.setdefault(class_name(path), []).append(path)
    return dict(sorted(found.items()))


def _images(folder: Path, bad: list[BadImageError], ignored: Counter[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES:
            suffix = _shown(Path(path.suffix)) if path.suffix else "unnamed kind of"
            kind = "sub-folder" if path.is_dir() else f"{suffix} file"
            ignored[path.name if path.name in _LEFT_BEHIND else kind] += 1
        elif not _is_text(path.name):
            bad.append(BadImageError(f"image {_shown(path)} has a name that is no UTF-8 text."))
        elif path.is_dir():
            bad.append(BadImageError(f"image {path} is a folder."))
        elif path.exists() and not path.is_file():
            bad.append(BadImageError(f"image {path} is a pipe, socket or device."))
        elif not path.exists():
            bad.append(BadImageError(f"image {path} is a link to a file that is not there."))
        else:
            yield path


def _is_text(name: str) -> bool:
    """Return whether a file's name is UTF-8; other bytes come as lone surrogates."""
    return name.isprintable() or not any("\ud800" <= c <= "\udfff" for c in name)


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _notes(root: Path, listing: Listing) -> tuple[str, ...]:
    if not listing.ignored:
        return ()
    kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(listing.ignored.items()))
    return (f"Not used in {root}, since they are no images of a class: {kinds}.",)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"image {path} cannot be read: {error.strerror}.") from error


def _key(root: Path, listing: Listing, config: DataConfig) -> str:
    """Return a hash of all that decides what the arrays are."""
    options = [_FORMAT, config.image_size, bool(config.convert_images), config.on_bad_image]
    digest = hashlib.sha256(json.dumps(options).encode())
    files = [path for split in SPLITS for path in listing.files[split]]

    def content_hash(path: Path) -> bytes:
        try:
            return hashlib.sha256(_read(path)).digest()
        except BadImageError:  # Is told, or skipped, when it is decoded.
            return b"unreadable"

    with ThreadPoolExecutor() as pool:
        hashes = pool.map(content_hash, files)
        for path, content in zip(_track(files, "Reading images"), hashes, strict=True):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:32]


def _track(files: list[Path], what: str) -> Iterable[Path]:
    """Show a bar where it takes long and somebody looks."""
    hidden = len(files) < 1000 or not rich.get_console().is_terminal
    return track(files, what, transient=True, disable=hidden)


def _decode_all(listing: Listing, config: DataConfig, writer: Writer) -> dict[str, Any]:
    """Write images and labels of both splits, and the moments of the training images' pixels."""
    for module in ("cv2", "PIL.Image", "simplejpeg"):
        need(module)  # Its absence is one error, not one of each image.
    bad = BadImages(config.on_bad_image)
    fits = _SameSize()

    def decode(path: Path) -> np.ndarray | BadImageError:
        try:
            image = decode_rgb(_read(path), f"image {path}", bool(config.convert_images))
        except BadImageError as error:
            return error
        return image if config.image_size is None else center_crop(image, config.image_size)

    for split in SPLITS:
        present = set()
        for paths, decoded in _in_chunks(decode, listing.files[split], f"Decoding {split}"):
            images, labels = [], []
            for path, image in zip(paths, decoded, strict=True):
                try:
                    images.append(fits(path, image))
                except BadImageError as error:
                    bad.add(error)
                    continue
                labels.append(listing.classes.index(class_name(path.parent)))
            if images:
                writer.extend(f"{split}_images", np.stack(images))
                writer.extend(f"{split}_labels", np.asarray(labels, np.int32))
            present.update(labels)
        for label, name in enumerate(listing.classes):
            if label not in present:
                raise ValueError(
                    f"no image of class {name} is left in {split}. The last reason: "
                    f"{bad.reasons()[-1]}"
                )
    writer.extend("train_moments", np.stack(pixel_moments(writer.rows("train_images"))))
    return {"bad_images": bad.reasons(), "classes": listing.classes}


def _in_chunks(
    decode: Callable[[Path], np.ndarray | BadImageError], files: list[Path], what: str
) -> Iterator[tuple[list[Path], list[np.ndarray | BadImageError]]]:
    """Yield some files at a time, with what ``decode``, in threads, gives for each."""
    chunk: list[Path] = []
    with ThreadPoolExecutor() as pool:
        for i, path in enumerate(_track(files, what), 1):
            chunk.append(path)
            if len(chunk) == _CHUNK or i == len(files):
                yield chunk, list(pool.map(decode, chunk))
                chunk = []


class _SameSize:
    """Passes on images that have the size of the first."""

    def __init__(self) -> None:
        self._first: tuple[Path, tuple[int, ...]] | None = None

    def __call__(self, path: Path, image: np.ndarray | BadImageError) -> np.ndarray:
        if isinstance(image, BadImageError):
            raise image
        first, shape = self._first = self._first or (path, image.shape)
        if image.shape != shape:
            raise BadImageError(
                f"image {path} has {image.shape[0]}x{image.shape[1]} pixels, but {first} has "
                f"{shape[0]}x{shape[1]}; --data.image-size N makes all N x N."
            )
        return image
