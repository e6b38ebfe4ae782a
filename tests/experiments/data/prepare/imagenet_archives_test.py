"""What is wrong with ImageNet's archives, or changed since the last run, is said before writing."""

import errno
import io
import os
import re
import shutil
import tarfile
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.data.prepare import imagenet_archives
from experiments.data.prepare.imagenet_archives import partial_folder, write_imagenet
from tests.experiments.data import archives

TRAIN = "ILSVRC2012_img_train.tar"


@pytest.fixture
def builder(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    archives.place_imagenet(tmp_path, train={"n01440764": 2, "n01443537": 3}, validation=0)
    return tfds.builder("imagenet2012", data_dir=tmp_path / "data", file_format="array_record")


@pytest.fixture
def without_validation(monkeypatch):
    """Its labels are read by tensorflow, which takes long to import."""
    monkeypatch.setattr(imagenet_archives, "ARCHIVES", {"train": TRAIN})


def write(builder, folder):
    return write_imagenet(builder, folder, Console(quiet=True))


def archive(path, **images):
    """A training archive with one image of each class."""
    with tarfile.open(path, "w") as outer:
        for label, name in images.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as file:
                file.addfile(tarfile.TarInfo(name))
            info = tarfile.TarInfo(f"{label}.tar")
            info.size = len(inner.getvalue())
            outer.addfile(info, io.BytesIO(inner.getvalue()))


def cut(path):
    path.write_bytes(path.read_bytes()[:-12_000])


def text(path):
    path.write_text("hello")


BAD = {
    "cut": (cut, "is damaged or incomplete: unexpected end of data. Get it again."),
    "text": (text, "is damaged or incomplete:"),
    "empty": (lambda path: archive(path), "has no images. Get it again."),
    "class": (
        lambda path: archive(path, n01="a.JPEG"),
        "is not ImageNet's: it has a.JPEG of class n01.",
    ),
    "twice": (
        lambda path: archive(path, n01440764="a.JPEG", n01443537="a.JPEG"),
        "has two images a.JPEG.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(builder, tmp_path, name):
    change, message = BAD[name]
    change(tmp_path / TRAIN)
    with pytest.raises(ValueError, match="^" + re.escape(f"{tmp_path / TRAIN} {message}")):
        write(builder, tmp_path)
    assert not (tmp_path / "data").exists()


def test_no_room(builder, tmp_path, monkeypatch, without_validation):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"^there is no room for 0\.0 GB more in .*\.partial\. M"):
        write(builder, tmp_path)


@archives.needs_tensorflow
def test_other_archives_are_refused_and_what_is_written_is_kept(
    builder, tmp_path, monkeypatch, without_validation
):
    """The disk is full at the second file; then the archive is another, and the first one again."""
    sharding = pytest.importorskip("tensorflow_datasets.core.utils.shard_utils")
    monkeypatch.setattr(sharding.ShardConfig, "min_shard_size", 2_000)
    calls = []

    def full(file):
        calls.append(file)
        if len(calls) == 3:  # After the first file and the note of it.
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write(builder, tmp_path)
    partial = partial_folder(tmp_path / "data" / "imagenet2012" / "5.1.0")
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("imagenet*")}
    assert len(before) == 1

    content = (tmp_path / TRAIN).read_bytes()
    archives.place_imagenet(tmp_path, train={"n01440764": 5}, validation=0)
    with pytest.raises(ValueError, match=r"was written from other archives or by another tensorf"):
        write(builder, tmp_path)

    (tmp_path / TRAIN).write_bytes(content)
    folder = write(builder, tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("imagenet*")}
    assert len(after) > 1
    assert before.items() < after.items()
    assert not partial.exists()
