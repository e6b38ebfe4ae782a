"""Data sets prepared by tensorflow-datasets, read without tensorflow."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from experiments.common.checks import is_address, local_path
from experiments.common.reasons import reason
from experiments.data.images import need

_END = 1 << 16  # Bytes at the end of a file that tell it from others.


class Example(NamedTuple):
    """One record.

    Attributes:
        name: The image's own name, or its number in the split.
        where: What errors call the image: its name, split and folder.
        content: The image file's bytes.
        label: Its class.
    """

    name: str
    where: str
    content: bytes
    label: int


def data_root(data_dir: str | None) -> epath.Path:
    """Return the folder of the prepared data sets; by default the one tensorflow-datasets uses.

    Raises:
        ValueError: If it is an address that ArrayRecord does not read: it reads ``gs://`` alone.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return epath.Path(root if root.startswith("gs://") else local_path("data_dir", root))


def prepared_folder(name: str, root: epath.Path) -> epath.Path | None:
    """Return the folder of the newest prepared version of ``name``, or None.

    Raises:
        ValueError: If the address of another machine cannot be read.
    """
    try:
        folders = [path.parent for path in (root / name).glob("*/dataset_info.json")]
    except Exception as error:  # Each library that reads addresses has exceptions of its own.
        if not is_address(root):
            raise
        raise ValueError(
            f"`data_dir` (={str(root)!r}) cannot be read: {reason(error)}. Give this machine "
            "access to it (uv pip install gcsfs; gcloud auth application-default login), or mount "
            "it and give that folder."
        ) from error
    versions = [folder for folder in folders if _version(folder)]
    return max(versions, key=_version, default=None)


def _version(folder: epath.Path) -> tuple[int, ...]:
    numbers = folder.name.split(".")
    return tuple(map(int, numbers)) if all(n.isdecimal() for n in numbers) else ()


class Split:
    """Random access to the records of a split; may be read by several threads.

    Args:
        name: Data set, as tensorflow-datasets calls it.
        data_dir: Folder of the prepared data sets; None for the default.
        split: Name of the split.

    Attributes:
        num_classes: Number of classes.
        named: Whether images have names of their own.

    Raises:
        ValueError: If it is not prepared, not as ArrayRecord, damaged, or empty.
    """

    def __init__(self, name: str, data_dir: str | None, split: str) -> None:
        """Read the description; no records yet."""
        tfds = need("tensorflow_datasets")
        root = data_root(data_dir)
        again = f"python -m experiments prepare {name} --data-dir {root}"
        folder = prepared_folder(name, root)
        if folder is None:
            raise ValueError(
                f"{name} is not prepared in {root}. Prepare it: {again} "
                "(or give the folder that has it: --data.data-dir FOLDER)."
            )
        self._where = f"split {split} of {folder}"
        self._again = f"Delete {folder} and prepare it again: {again}"
        try:
            builder = tfds.builder_from_directory(folder)
            file_format = builder.info.file_format
        except Exception as error:  # Each damaged file has exceptions of its own.
            raise self._damaged(error) from error
        if file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise ValueError(
                f"{folder} has {file_format.value}, which only tensorflow reads; this reads "
                f"array_record. Prepare it in another folder: python -m experiments prepare {name} "
                "--data-dir FOLDER"
            )
        info = builder.info.splits.get(split)
        if info is None or not info.num_examples:
            raise ValueError(f"{self._where} has no images. {self._again}")
        self.num_classes: int = builder.info.features["label"].num_classes
        features = builder.info.features
        self.named = "file_name" in features or "id" in features
        self._files, self._lengths = info.filepaths, info.shard_lengths
        skip = {"image": tfds.decode.SkipDecoding()}
        self._source = builder.as_data_source(split=split, decoders=skip)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._source)

    def sha256(self) -> str:
        """Return a SHA-256 that tells the split from others, hexadecimal; does not read it all.

        It is of names, sizes, numbers of images and ends of the files. At the end of an ArrayRecord
        file is where each record begins: an image more, less or of another length is noticed, but
        not one that is replaced by another of as many bytes.
        """
        digest = hashlib.sha256(json.dumps(list(self._lengths)).encode())
        for path in self._files:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _END))
                digest.update(f"{path.name} {size}\n".encode() + file.read())
        return digest.hexdigest()

    def read(self, indices: Sequence[int]) -> list[Example]:
        """Return some records, images still encoded.

        Raises:
            ValueError: If a file is missing or damaged.
        """
        try:
            records = self._source.__getitems__([int(i) for i in indices])
        except RuntimeError:  # ArrayRecord checks every chunk that it reads.
            records = [self._read_one(int(i)) for i in indices]
        return [self._example(i, record) for i, record in zip(indices, records, strict=True)]

    def _read_one(self, index: int) -> dict[str, Any]:
        """Read a single record, to tell which file is damaged."""
        try:
            (record,) = self._source.__getitems__([index])
        except RuntimeError as error:
            shard = int(np.searchsorted(np.cumsum(self._lengths), index, side="right"))
            raise self._damaged(error, self._files[shard].name) from error
        return record

    def _example(self, index: int, record: dict[str, Any]) -> Example:
        name = record.get("file_name", record.get("id"))
        text = f"number {index}" if name is None else name.decode()
        where = f"image {text} ({self._where})"
        return Example(text, where, record["image"], int(record["label"]))

    def _damaged(self, error: Exception, file: str = "") -> ValueError:
        text = " ".join(str(error).split())[:300]
        at = f" at {file}" if file else ""
        return ValueError(f"{self._where} cannot be read{at}: {text}. {self._again}")
