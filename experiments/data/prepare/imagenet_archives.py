"""Writes ImageNet from its two archives, file by file, so that it goes on where it was stopped.

tensorflow-datasets copies all images to temporary files, sorts them, and then writes; interrupted,
it begins again. Here the archives are listed first. That tells which images are in which file, and
every file is written on its own, from the archives, under a temporary name. The result is what
tensorflow-datasets writes: the same files with the same records. Fields within a record, which it
writes in another order in every process, are sorted, so that the bytes are always the same.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments.common.files import write_text
from experiments.common.storage import folder_bytes
from experiments.data.images import need

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_UNFINISHED = "unfinished."  # And the process that writes it.
_OVERHEAD = 64  # Bytes of a record beside its image and its name, about.


class _Image(NamedTuple):
    """An image within an archive: its bytes begin at ``offset``."""

    name: str
    label: str
    offset: int
    size: int


def partial_folder(folder: Path) -> Path:
    """Return where a data set is written that will be in ``folder``."""
    return folder.with_name(f"{folder.name}.partial")


def write_imagenet(builder: Any, archives: Path, console: Console) -> Path:
    """Write the data set, or what is missing of it.

    Args:
        builder: The data set as tensorflow-datasets describes it, not prepared.
        archives: Folder of the two archives.
        console: Where progress goes.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: If an archive is damaged or not the one, was another when the first files were
            written, or there is not enough room; with what to do.
        OSError: If it cannot be written.
    """
    folder = Path(builder.data_dir)
    partial = partial_folder(folder)
    splits = {
        name: _list(builder, name, archives / file, console) for name, file in ARCHIVES.items()
    }
    written = _Written(partial, need("tensorflow_datasets").__version__, splits)
    partial.mkdir(parents=True, exist_ok=True)
    for unfinished in partial.glob(f"{_UNFINISHED}*"):
        unfinished.unlink()
    missing = sum(image.size for images in splits.values() for image in images)
    missing -= folder_bytes(partial)
    if missing > shutil.disk_usage(partial).free:
        raise ValueError(
            f"there is no room for {missing / 1e9:.1f} GB more in {partial}. Make some and run "
            "this again, or give another folder: --data-dir FOLDER."
        )
    with _progress(console) as progress:
        infos = [
            _write_split(builder, archives / ARCHIVES[name], name, images, written, progress)
            for name, images in splits.items()
        ]
    builder.info.set_splits(need("tensorflow_datasets").core.SplitDict(infos))
    builder.info.download_size = 0
    builder.info.write_to_directory(partial)
    partial.rename(folder)
    (folder / _Written.FILE).unlink()
    return folder


class _Written:
    """Which files are complete, and how many bytes of records they hold; on disk, for the next run.

    Args:
        folder: Of the files.
        version: Of tensorflow-datasets.
        splits: The images, in the order of their records.

    Raises:
        ValueError: If the files there were written by another version or from other images.
    """

    FILE = "written.json"

    def __init__(self, folder: Path, version: str, splits: dict[str, list[_Image]]) -> None:
        """Read what is there."""
        self.folder, self._path = folder, folder / self.FILE
        digest = hashlib.sha256(json.dumps([version, splits]).encode()).hexdigest()
        self._state: dict[str, Any] = {"made_from": digest, "files": {}}
        if self._path.is_file():
            self._state = _state(self._path)
        if self._state["made_from"] != digest:
            raise ValueError(
                f"{folder} was written from other archives or by another tensorflow-datasets. "
                "Use those, or delete it to begin again."
            )

    def size(self, file: str) -> int | None:
        """Bytes of the records of a file, None if it is not complete."""
        return self._state["files"].get(file)

    def add(self, file: str, size: int) -> None:
        """Note that a file is complete."""
        self._state["files"][file] = size
        write_text(self._path, json.dumps(self._state))


def files_written(folder: Path) -> int:
    """Return the number of complete files that an interrupted run has left."""
    path = partial_folder(folder) / _Written.FILE
    return len(_state(path)["files"]) if path.is_file() else 0


def _state(path: Path) -> dict[str, Any]:
    """Return what ``_Written`` has noted; that of no archives where it cannot be read."""
    try:
        state = json.loads(path.read_text())
        return {"made_from": state["made_from"], "files": dict(state["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"made_from": None, "files": {}}


def _list(builder: Any, split: str, path: Path, console: Console) -> list[_Image]:
    """Return the images of an archive, in the order in which tensorflow-datasets writes them."""
    names = set(builder.info.features["label"].names)
    images: dict[str, _Image] = {}
    with _progress(console) as progress, path.open("rb") as file:
        task = progress.add_task(f"Listing {path.name}", total=None)
        try:
            for image in _train(file) if split == "train" else _validation(file, path):
                if image.label not in names:
                    raise ValueError(
                        f"{path} is not ImageNet's: it has {image.name} of class {image.label}."
                    )
                if images.setdefault(image.name, image) is not image:
                    raise ValueError(f"{path} has two images {image.name}.")
                progress.advance(task)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{path} is damaged or incomplete: {error}. Get it again.") from error
    if not images:
        raise ValueError(f"{path} has no images. Get it again.")
    return sorted(images.values(), key=lambda i: hashlib.md5(f"{split}{i.name}".encode()).digest())


def _train(file: BinaryIO) -> Iterator[_Image]:
    """Return an archive of archives, each with the images of the class that it is named after."""
    with tarfile.open(fileobj=file, mode="r:") as outer:
        for member in filter(tarfile.TarInfo.isfile, outer):
            label = member.name.removesuffix(".tar")
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                for image in filter(tarfile.TarInfo.isfile, inner):
                    offset = member.offset_data + image.offset_data
                    yield _Image(image.name, label, offset, image.size)


def _validation(file: BinaryIO, path: Path) -> Iterator[_Image]:
    """Return an archive of images; their classes are listed by tensorflow-datasets."""
    common = need("tensorflow_datasets.datasets.imagenet2012.imagenet_common")
    labels = common.get_validation_labels(path)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for image in filter(tarfile.TarInfo.isfile, archive):
            label = labels.get(image.name, "unknown")
            yield _Image(image.name, label, image.offset_data, image.size)


def _write_split(
    builder: Any,
    archive: Path,
    split: str,
    images: list[_Image],
    written: _Written,
    progress: Progress,
) -> Any:
    """Write the files that are missing; return what tensorflow-datasets notes of a split."""
    core = need("tensorflow_datasets").core
    sharding = need("tensorflow_datasets.core.utils.shard_utils")
    size = sum(image.size + len(image.name) + _OVERHEAD for image in images)
    count = sharding.ShardConfig().get_number_shards(size, len(images))
    ends = list(sharding.get_shard_boundaries(len(images), count))
    template = core.ShardedFileTemplate(
        data_dir=builder.data_dir,
        dataset_name=builder.name,
        split=split,
        filetype_suffix=builder.info.file_format.file_suffix,
    )
    task = progress.add_task(f"Writing {split}", total=len(images))
    total, start = 0, 0
    for i, end in enumerate(ends):
        file = template.relative_filepath(shard_index=i, num_shards=count)
        number = written.size(str(file))
        if number is None:
            part = images[start:end]
            number = _write_file(builder, archive, split == "train", part, written.folder / file)
            written.add(str(file), number)
        total += number
        progress.advance(task, end - start)
        start = end
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=total, filename_template=template
    )


def _write_file(
    builder: Any, archive: Path, fix: bool, images: Sequence[_Image], path: Path
) -> int:
    """Write one file, whole or not at all; return the bytes of its records."""
    contents = {}
    with archive.open("rb") as file:
        for image in sorted(images, key=lambda image: image.offset):  # Forwards, for a hard disk.
            file.seek(image.offset)
            contents[image.name] = io.BytesIO(file.read(image.size))
    features = builder.info.features
    serializer = need("tensorflow_datasets").core.ExampleSerializer(features.get_serialized_info())
    records = []
    for image in images:
        content = contents.pop(image.name)
        if fix:  # Some images of the training set are PNG or CMYK.
            content = builder._fix_image(image.name, content)
        example = {"file_name": image.name, "image": content, "label": image.label}
        message = serializer.get_tf_example(features.encode_example(example))
        records.append((image.name, message.SerializeToString(deterministic=True)))
    adapters = need("tensorflow_datasets.core.file_adapters")
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}")
    adapters.ADAPTER_FOR_FORMAT[builder.info.file_format].write_examples(temporary, records)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(path)
    return sum(len(data) for _, data in records)


def _progress(console: Console) -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn()
    hidden = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden)
