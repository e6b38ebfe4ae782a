"""Preparing with tensorflow and training without: the true builders, on small archives."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.config.data import DataConfig
from experiments.data import load_arrays, load_dataset
from experiments.data.prepare import __main__
from experiments.data.prepare.records import Split
from tests.experiments.data import archives
from tests.experiments.data.archives import needs_tensorflow
from tests.experiments.data.prepare.prepare_programs import PREPARE, READ

ROOT = Path(__file__).parents[4]


def run(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """All four, prepared by one process: it takes long to import tensorflow."""
    root = tmp_path_factory.mktemp("prepared")
    splits = {name: archives.place_cifar(root, name) for name in ("cifar10", "cifar100")}
    splits["mnist"] = archives.place_mnist(root)
    archives.place_imagenet(
        root / "downloads" / "manual", train={"n01440764": 5, "n01443537": 14}, validation=3
    )
    # As a process that was killed leaves it.
    (root / "cifar10" / "incomplete.ABCDEF_3.0.2").mkdir(parents=True)
    output = run(PREPARE, root, "imagenet2012", *splits)
    return root, splits, output


@needs_tensorflow
def test_prepares_and_checks(prepared):
    root, _, output = prepared
    assert output.count("status 0") == 4
    assert "train: 150 images of 10 classes" in output
    assert "All 180 images can be used." in output
    assert "train: 19 images of 1,000 classes" in output
    note = f"note: {root}/cifar10/incomplete.ABCDEF_3.0.2 (0.0 GB) is of an interrupted preparation"
    assert output.index(note) < output.index("Preparing cifar10 in")
    assert f"--data.dataset cifar100 --data.data-dir {root}" in output


@needs_tensorflow
def test_imagenet_goes_on_where_it_was_stopped(prepared):
    """Stopped twice; the files are those of a whole run, and tensorflow-datasets' records."""
    root, _, output = prepared
    assert "interrupted 1 ['imagenet2012', 'imagenet2012', 'unfinished." in output
    assert f"interrupted 1 {['imagenet2012'] * 4}"[:-1] + ", 'unfinished." in output
    assert (
        "error: interrupted while imagenet2012 was being prepared. Run this again to go on; the 4 "
        f"files that are complete, in {root}/imagenet2012/5.1.0.partial, are kept."
    ) in output
    folder, whole, expected = (
        path / "imagenet2012" / "5.1.0" for path in (root, root / "whole", root / "tfds")
    )
    names = sorted(path.name for path in expected.iterdir())
    assert sum("train.array_record" in name for name in names) == 8
    for path in folder, whole:
        assert sorted(file.name for file in path.iterdir()) == names
    for name in names:
        content = (folder / name).read_bytes()
        assert content == (whole / name).read_bytes(), name
        if "array_record" not in name:
            assert content == (expected / name).read_bytes(), name
    for split, n in ("train", 19), ("validation", 3):
        ours, theirs = (
            Split("imagenet2012", str(path), split).read(range(n)) for path in (root, root / "tfds")
        )
        assert [e._replace(where="") for e in ours] == [e._replace(where="") for e in theirs]


@needs_tensorflow
def test_fields_of_records_of_imagenet_are_sorted(prepared):
    """Else the bytes would be others in every process."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    paths = (prepared[0] / "imagenet2012" / "5.1.0").glob("*array_record*")
    source = ArrayRecordDataSource(sorted(map(str, paths)))
    for record in source.__getitems__(list(range(len(source)))):
        # Of random bytes, an image's cannot have these names by chance.
        places = [record.find(name) for name in (b"file_name", b"image", b"label")]
        assert places == sorted(places)
        assert -1 not in places


@needs_tensorflow
def test_reads_without_tensorflow(prepared):
    root, _, _ = prepared
    lines = run(READ, root).splitlines()
    assert lines == [
        "mnist (4, 28, 28, 1) (4, 28, 28, 1)",
        "cifar10 (4, 32, 32, 3) (4, 32, 32, 3)",
        "cifar100 (4, 32, 32, 3) (4, 32, 32, 3)",
        "imagenet2012 (4, 224, 224, 3) (4, 224, 224, 3)",
        "tensorflow: []",
    ]


@needs_tensorflow
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_are_those_of_the_archive_in_its_order(prepared, name):
    root, splits, _ = prepared
    dataset = load_dataset(DataConfig(dataset=name, data_dir=str(root)))
    assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    for split in ("train", "test"):
        images, labels = splits[name][split]
        np.testing.assert_array_equal(getattr(dataset, f"{split}_images"), images)
        np.testing.assert_array_equal(getattr(dataset, f"{split}_labels"), labels)
    record = dataset.record()
    assert (record["flip"], record["max_shift"]) == (True, 4)
    assert dataset.background == 0  # The mean, as in the authors' code: filled after scaling.
    x = splits[name]["train"][0].astype(float)
    expected = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    np.testing.assert_allclose(dataset.standardize(dataset.train_images), expected, atol=1e-5)


@needs_tensorflow
def test_mnist(prepared):
    """Its images have no names, so they are in another order than in its files."""
    root, splits, _ = prepared
    dataset = load_arrays(DataConfig(dataset="mnist", data_dir=str(root)))
    for part, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        found = sorted(
            (image.tobytes(), label) for image, label in zip(images, labels, strict=True)
        )
        expected = zip(*splits["mnist"][part], strict=True)
        assert found == sorted((image.tobytes(), label) for image, label in expected)
    black = dataset.standardize(np.zeros((1, 28, 28, 1), np.uint8))
    np.testing.assert_allclose(black, dataset.background, rtol=1e-6)
    assert (dataset.flip, dataset.max_shift, dataset.num_classes) == (False, 2, 10)
    config = DataConfig(dataset="mnist", data_dir=str(root), scaling="pixel-variance")
    with pytest.raises(ValueError, match="is not possible for mnist: some pixels are black"):
        load_dataset(config)


@needs_tensorflow
def test_the_authors_scaling(prepared):
    root, splits, _ = prepared
    config = DataConfig(dataset="cifar10", data_dir=str(root), scaling="pixel-variance")
    dataset = load_dataset(config)
    train, test = (splits["cifar10"][split][0].astype(float) for split in ("train", "test"))
    expected = (test - train.mean(axis=0)) / train.var(axis=0)
    np.testing.assert_allclose(dataset.standardize(dataset.test_images), expected, atol=1e-6)


@needs_tensorflow
def test_labels_of_imagenet_are_those_of_its_list(prepared):
    """n01440764 and n01443537 are the first two of 1,000 classes."""
    root, _, _ = prepared
    dataset = load_dataset(DataConfig(dataset="imagenet2012", data_dir=str(root)))
    examples = dataset.train.read(range(19))
    assert {(e.name, e.label) for e in examples} == {
        *((f"n01440764_{i}.JPEG", 0) for i in range(5)),
        *((f"n01443537_{i}.JPEG", 1) for i in range(14)),
    }
    assert (dataset.num_classes, dataset.test_size) == (1000, 3)


@needs_tensorflow
def test_a_second_call_finds_it(prepared, capsys):
    root, _, _ = prepared
    start = time.monotonic()
    assert __main__.main(["cifar10", "--data-dir", str(root), "--no-check"]) == 0
    output = capsys.readouterr().out
    assert f"cifar10 is already prepared in {root}/cifar10/3.0.2" in output
    assert "can be used" not in output
    assert time.monotonic() - start < 5


def copy(prepared, tmp_path, change):
    """A prepared cifar10 with something wrong."""
    import shutil

    folder = tmp_path / "cifar10" / "3.0.2"
    shutil.copytree(prepared[0] / "cifar10" / "3.0.2", folder)
    change(folder)
    return folder


def shard(folder):
    (path,) = folder.glob("cifar10-train*")
    return path


def flip(folder):
    content = bytearray(shard(folder).read_bytes())
    content[len(content) // 2] ^= 1
    shard(folder).write_bytes(content)


def drop_split(folder):
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] == "test"]
    path.write_text(json.dumps(info))


def as_tfrecord(folder):
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))


def fewer_classes(folder):
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"numClasses": "10"', '"numClasses": "5"'))


DAMAGE = {
    "flipped byte": (flip, r"train of .*3\.0\.2 cannot be read at cifar10-train\.array.*: .* Del"),
    "missing shard": (
        lambda f: shard(f).unlink(),
        r"cannot be read at cifar10-train\S*: .*No such file",
    ),
    "no description": (lambda f: (f / "features.json").unlink(), r"cannot be read: .* Delete"),
    "empty split": (drop_split, r"split train of .*3\.0\.2 has no images\. Delete .* prepare"),
    "not ArrayRecord": (as_tfrecord, r"3\.0\.2 has tfrecord, which only tensorflow reads; this"),
    "labels": (fewer_classes, r"image train_\d+ .* has label \d, but must have one from 0 to 4"),
}


@needs_tensorflow
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(prepared, tmp_path, name):
    change, message = DAMAGE[name]
    copy(prepared, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load_dataset(DataConfig(dataset="cifar10", data_dir=str(tmp_path)))


@needs_tensorflow
def test_bad_images_are_left_out_and_counted(prepared, tmp_path, capsys):
    copy(prepared, tmp_path, fewer_classes)
    config = DataConfig(dataset="cifar10", data_dir=str(tmp_path), on_bad_image="skip")
    dataset = load_dataset(config)
    images, labels = prepared[1]["cifar10"]["train"]
    np.testing.assert_array_equal(dataset.train_images, images[labels < 5])
    bad = sum(np.sum(part[1] >= 5) for part in prepared[1]["cifar10"].values())
    assert dataset.record()["bad_images_count"] == bad
    assert __main__.main(["cifar10", "--data-dir", str(tmp_path)]) == 1
    assert f"error: {bad} of 180 images cannot be used: image" in capsys.readouterr().err
