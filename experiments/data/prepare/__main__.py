"""Download and prepares a data set: ``python -m experiments prepare cifar10 --data-dir FOLDER``.

It needs tensorflow (the dependency group ``tf``); training on what it prepares does not.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from experiments.common.checks import local_path
from experiments.common.cli import run_cli
from experiments.common.console import CommandConsole
from experiments.common.storage import folder_bytes
from experiments.data.images import BadImageError, check_label, decode_gray, decode_rgb, need
from experiments.data.prepare.download import download, file_sha256
from experiments.data.prepare.imagenet_archives import (
    ARCHIVES,
    files_written,
    partial_folder,
    write_imagenet,
)
from experiments.data.prepare.records import Example, Split, data_root, prepared_folder

# Splits, in the order of their use: training, then testing.
SPLITS = {
    "mnist": ("train", "test"),
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "imagenet2012": ("train", "validation"),
}
_CHUNK = 256  # Images that are read before they are checked.


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Download a data set, prepares it for training, and checks every image.

    What is complete is not done again: an interrupted download goes on where it was, so does the
    writing of imagenet2012, by files of about a thousand images (the others are written in
    seconds), and a call after that finds the prepared data. Needs the dependency group tf.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """mnist (12 MB to download), cifar10 (170 MB), cifar100 (169 MB), or imagenet2012 (146 GB; only
    from the two archives ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which you must
    have)."""
    data_dir: str | None = None
    """Folder of the prepared data sets. Default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    manual_dir: str | None = None
    """Folder with archives that you have already. Default: downloads/manual in the data folder."""
    check: bool = True
    """Decode every image at the end, so that no damaged one shows up in training."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.dataset not in SPLITS:
            raise ValueError(
                f"dataset (={self.dataset!r}) cannot be prepared; choose from {', '.join(SPLITS)}. "
                "(digits and imagefolder need no preparation.)"
            )


def prepare(config: PrepareConfig, console: Console) -> Path:
    """Prepare a data set, unless it is prepared.

    Args:
        config: What to prepare.
        console: Where progress and findings go.

    Returns:
        The folder of the prepared data set.

    Raises:
        ValueError: If tensorflow, the network, an archive or room on the disk is missing, an image
            is damaged, or it is interrupted; with what to do.
    """
    root = local_path("data_dir", str(data_root(config.data_dir)))
    for path in sorted((root / config.dataset).glob("incomplete.*")):
        console.print(
            f"note: {path} ({folder_bytes(path) / 1e9:.1f} GB) is of an interrupted preparation, "
            "and cannot be continued; delete it unless one is running.",
            soft_wrap=True,
        )
    found = prepared_folder(config.dataset, data_root(str(root)))
    if found is None:
        folder = _prepare(config, root, console)
    else:
        folder = Path(found)
        console.print(f"{config.dataset} is already prepared in {folder}", soft_wrap=True)
    splits = {name: Split(config.dataset, str(root), name) for name in SPLITS[config.dataset]}
    for name, split in splits.items():
        console.print(f"{name}: {len(split):,} images of {split.num_classes:,} classes")
    if config.check:
        _check(config, splits, console)
    console.print(
        f"Train with: python -m experiments train --data.dataset {config.dataset} "
        f"--data.data-dir {root}",
        soft_wrap=True,
    )
    return folder


def _prepare(config: PrepareConfig, root: Path, console: Console) -> Path:
    tfds = need("tensorflow_datasets")
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"preparing {config.dataset} needs tensorflow, which is not installed: "
            "in the checkout, uv pip install --group tf. "
            "Training does not need it: you can also prepare on another machine and copy "
            f"{root / config.dataset}."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Else it tells about the CPU.
    manual = Path(config.manual_dir or root / "downloads" / "manual").expanduser()
    builder = tfds.builder(config.dataset, data_dir=root, file_format="array_record")
    if config.dataset == "imagenet2012":
        _find_imagenet(manual)
    else:
        _find_archives(builder, root, manual, config, console)
    console.print(f"Preparing {config.dataset} in {builder.data_dir}", soft_wrap=True)
    if not console.is_terminal:
        tfds.disable_progress_bar()  # In a file it would be one line for each step.
    options = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
    try:
        if config.dataset == "imagenet2012":
            return write_imagenet(builder, manual, console)
        builder.download_and_prepare(download_config=options)
    except tfds.download.DownloadError as error:
        raise ValueError(f"{config.dataset} cannot be prepared: {error}") from error
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted while {config.dataset} was being prepared. Run this again to go on; "
            f"{_kept(config.dataset, Path(builder.data_dir))} kept."
        ) from None
    except OSError as error:
        raise ValueError(
            f"{config.dataset} cannot be prepared in {root}: {error}. Give a folder with room for "
            "it (twice the size of the download): --data-dir FOLDER. Nothing else was changed; "
            f"{_kept(config.dataset, Path(builder.data_dir))} kept."
        ) from error
    return Path(builder.data_dir)


def _kept(dataset: str, folder: Path) -> str:
    if dataset != "imagenet2012":
        return "finished downloads are"
    return f"the {files_written(folder)} files that are complete, in {partial_folder(folder)}, are"


def _find_imagenet(manual: Path) -> None:
    missing = [name for name in ARCHIVES.values() if not (manual / name).is_file()]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be in {manual}. They cannot be downloaded without an "
            "account: register at image-net.org, download them (138 GB and 6.3 GB), put them there "
            "or give their folder (--manual-dir FOLDER), and run this again."
        )


def _find_archives(
    builder: Any, root: Path, manual: Path, config: PrepareConfig, console: Console
) -> None:
    """Download the archives that are neither in the manual folder nor in tensorflow-datasets'."""
    for url, info in builder.url_infos.items():
        path = manual / info.filename
        if path.is_file():
            if (found := file_sha256(path)) != info.checksum:
                raise ValueError(
                    f"{path} is not the archive of {config.dataset}: its SHA-256 is {found}, not "
                    f"{info.checksum}. Remove or replace it."
                )
        elif not _has_download(root, url):
            if config.manual_dir is not None:
                raise ValueError(f"{path} is missing; put it there, or leave out --manual-dir.")
            console.print(f"Downloading {url} to {path}", soft_wrap=True)
            download(url, path, int(info.size), info.checksum, console)


def _has_download(root: Path, url: str) -> bool:
    """Return whether tensorflow-datasets has downloaded ``url`` before."""
    for path in (root / "downloads").rglob("*.INFO"):
        with suppress(OSError, ValueError, AttributeError):  # A damaged one tells of nothing.
            known = json.loads(path.read_text()).get("urls", [])
            if path.with_suffix("").is_file() and url in known:
                return True
    return False


def _check(config: PrepareConfig, splits: dict[str, Split], console: Console) -> None:
    """Decode every image; raise if one is damaged."""
    convert = config.dataset == "imagenet2012"
    as_rgb = partial(decode_rgb, convert=convert, strict=config.dataset != "imagenet2012")
    decode = decode_gray if config.dataset == "mnist" else as_rgb

    def check(example: Example, num_classes: int) -> str | None:
        try:
            decode(example.content, example.where)
            check_label(example.label, num_classes, example.where)
        except BadImageError as error:
            return str(error)
        return None

    bad: list[str] = []
    with ThreadPoolExecutor() as pool, Progress(console=console, transient=True) as progress:
        for name, split in splits.items():
            task = progress.add_task(f"Checking {name}", total=len(split))
            for start in range(0, len(split), _CHUNK):
                chunk = split.read(range(start, min(start + _CHUNK, len(split))))
                found = pool.map(check, chunk, [split.num_classes] * len(chunk))
                bad += [text for text in found if text is not None]
                progress.advance(task, len(chunk))
    total = sum(map(len, splits.values()))
    if bad:
        shown = " ".join(bad[:5]) + (" ..." if len(bad) > 5 else "")
        raise ValueError(
            f"{len(bad)} of {total:,} images cannot be used: {shown} Train without them: "
            "--data.on-bad-image skip."
        )
    console.print(f"All {total:,} images can be used.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    # Asked to end, it clears up and tells what is kept, as when it is interrupted at a keyboard.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_cli(
            "python -m experiments prepare",
            PrepareConfig,
            arguments,
            lambda config: prepare(config, CommandConsole()),
        )
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
