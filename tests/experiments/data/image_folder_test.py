"""The user's own images: decoded once, kept until something changes, and what is wrong named."""

import json
import os
import re
import shutil
import unicodedata
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, train
from experiments.data.image_folder import list_images
from tests.experiments.data.folders import load, make_root, pixels, write

SHARED = Path(__file__).parents[4] / "shared" / "data" / "cifar10-jpeg-test.zip"


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def test_images_and_labels_are_those_of_the_files(root):
    dataset = load(root)
    for split, images, labels in [
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ]:
        files = sorted(p for p in (root / split).rglob("*.*") if p.name[0] in "012345")
        assert [p.parent.name for p in files] == ["ab"[label] for label in labels]
        for path, image in zip(files, images, strict=True):
            difference = np.asarray(Image.open(path)).astype(int) - image
            assert np.abs(difference).max() <= (0 if path.suffix == ".png" else 1)
    assert dataset.num_classes == 2
    assert dataset.name == "pictures (10 training and 5 test images, 8x12)"
    assert dataset.record()["max_shift"] == 1  # An eighth of the shorter side.
    assert dataset.record()["flip"]
    x = dataset.train_images.astype(float)
    expected = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    np.testing.assert_allclose(dataset.standardize(dataset.train_images), expected, atol=1e-5)


def test_nothing_is_written_into_the_folder(root):
    before = sorted(root.rglob("*"))
    load(root)
    assert sorted(root.rglob("*")) == before


def test_a_pipe_named_like_an_image(root):
    os.mkfifo(root / "train" / "a" / "p.png")
    with pytest.raises(ValueError, match="is a pipe, socket or device"):
        load(root)
    assert load(root, on_bad_image="skip").train_size == 10


def test_what_is_named_like_an_image_and_is_none(root):
    (root / "train" / "a" / "link.png").symlink_to("nowhere")
    (root / "train" / "b" / "folder.jpg").mkdir()
    name = os.fsdecode(b"\xff.png")
    shutil.copy(root / "train" / "a" / "0.png", root / "train" / "a" / name)
    with pytest.raises(ValueError, match=r"--data\.on-bad-image skip") as error:
        load(root)
    str(error.value).encode()  # It can be printed.
    dataset = load(root, on_bad_image="skip")
    assert dataset.train_size == 10
    record = dataset.record()
    assert record["bad_images_count"] == 3
    for words in ("is a link to a file that is not there", "is a folder", "is no UTF-8 text"):
        assert any(words in reason for reason in record["bad_images"])
    assert load(root, on_bad_image="skip").record() == record


def test_other_kinds_of_files_are_counted_once(root):
    (root / "train" / "__MACOSX").mkdir()
    (root / "test" / "readme.md").write_text("")
    (root / "train" / "b" / "more").mkdir()
    for i, suffix in enumerate([".gif", ".gif"]):
        (root / "test" / "a" / f"{i}{suffix}").write_text("")
    (note,) = load(root).notes
    for count in ("1 x __MACOSX", "1 x file outside of a class", "1 x sub-folder", "2 x .gif file"):
        assert count in note
    assert "1 x .txt file" in note


@pytest.mark.parametrize("suffix", [".webp", ".jfif", ".jpe"])
def test_other_endings_of_images_are_taken(root, suffix):
    image, kind = np.full((8, 12, 3), 100, np.uint8), "WEBP" if suffix == ".webp" else "JPEG"
    write(root / "train" / "a" / f"9{suffix}", image, format=kind, quality=100)
    dataset = load(root)
    assert dataset.train_size == 11
    assert np.abs(dataset.train_images[4].astype(int) - image).max() <= 2


def test_one_class_in_two_spellings(root):
    """macOS writes names decomposed (NFD), others composed (NFC)."""
    names = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    (root / "train" / "a").rename(root / "train" / names[0])
    (root / "test" / "a").rename(root / "test" / names[1])
    shutil.copytree(root / "train" / names[0], root / "train" / names[1])
    dataset = load(root)
    assert dataset.record()["classes"] == ["b", names[0]]
    assert dataset.train_labels.tolist() == [0] * 6 + [1] * 8
    assert dataset.test_labels.tolist() == [0] * 3 + [1] * 2


def grayscale(path):
    write(path, pixels()[..., 0])


def cmyk(path):
    Image.fromarray(pixels()).convert("CMYK").save(path.with_suffix(".jpg"))
    path.unlink()


def deep(path):
    write(path, pixels()[..., 0].astype(np.uint16) * 257)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-20])


def another_size(path):
    write(path, pixels(9, 12))


BAD = {
    grayscale: "is grayscale, but must be 8-bit RGB; --data.convert-images converts such images.",
    cmyk: "is CMYK, but must be 8-bit RGB; --data.convert-images converts such images.",
    deep: "is 16-bit, but must be 8-bit RGB; --data.convert-images converts such images.",
    truncated: "is damaged or truncated (",
    another_size: "has 9x12 pixels, but",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_bad_images_are_named_or_skipped(root, spoil):
    path = root / "train" / "b" / "3.png"
    spoil(path)
    named = next(path.parent.glob("3.*"))
    message = f"image {named} {BAD[spoil]}"
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load(root)
    assert "To leave such images out and count them: --data.on-bad-image skip." in str(error.value)
    dataset = load(root, on_bad_image="skip")
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 5
    assert len(dataset.train_images) == dataset.train_size == 9
    (reason,) = dataset.record()["bad_images"]
    assert reason.startswith(message)
    # Also when it comes from the cache.
    assert load(root, on_bad_image="skip").record()["bad_images_count"] == 1
    if "--data.convert-images" in message:
        assert load(root, convert_images=True).train_size == 10


def test_image_size_makes_all_alike(root):
    for i, name in enumerate(["0", "1"]):
        write(root / "train" / "a" / f"{name}.png", pixels(40 + i, 17))
    dataset = load(root, image_size=6)
    assert dataset.train_images.shape == (10, 6, 6, 3)
    # The middle 8x8 of an 8x12 image, bilinear: a mean of four neighbours stays in their range.
    assert dataset.test_images.shape == (5, 6, 6, 3)


def remove(*names):
    def change(root):
        shutil.rmtree(root.joinpath(*names))

    return change


def clear(*names):
    def change(root):
        for path in root.joinpath(*names).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("train"), r"train is missing: an image folder has train/CLASS/ and test/CLASS/"),
        (remove("test"), r"test is missing: an image folder has train/CLASS/ and test/CLASS/"),
        (clear("test"), r"test is empty, it has no class folders: an image folder has"),
        (remove("test", "a"), r"class folder .*test/a is missing: 1 of the classes in .*train are"),
        (
            remove("train", "b"),
            r"class folder .*train/b is missing: 1 of the classes in .*test are",
        ),
        (
            clear("train", "b"),
            r"class folder .*train/b is empty: it has no \.jpg, .*, \.webp file",
        ),
    ],
)
def test_missing_and_empty_folders(root, change, message):
    change(root)
    with pytest.raises(ValueError, match=message):
        list_images(root)


def test_a_class_without_good_images(root):
    for path in (root / "test" / "a").iterdir():
        truncated(path)
    message = r"no image of class a is left in test\. The last reason: .*1\.png is damaged"
    with pytest.raises(ValueError, match=message):
        load(root, on_bad_image="skip")


def test_unreadable_image(root):
    path = root / "train" / "a" / "1.png"
    path.unlink()
    path.symlink_to(root / "gone.png")
    with pytest.raises(ValueError, match=rf"image {path} is a link to a file that is not there"):
        load(root)


@pytest.mark.slow
def test_trains_from_the_command_line(tmp_path, capsys):
    """Real images where they are at hand: a skipped one is in the record, accuracies reproduce."""
    root = tmp_path / "pictures"
    for name in ("cat", "ship"):
        for split, count in (("train", 12), ("test", 5)):
            for i in range(count):
                write(root / split / name / f"{i}.png", pixels(16, 16))
    truncated(root / "train" / "cat" / "7.png")
    options = (
        f"--data.dataset imagefolder --data.data-dir {root} --data.cache-dir {tmp_path / 'cache'} "
        f"--run-dir {tmp_path / 'run'} --norms ubn --seeds 0 --evals-per-epoch 1 --model.blocks 1 "
        "--model.widths 4 --optim.epochs 2 --optim.batch-size 8"
    ).split()
    assert train.main(options) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: image {root}/train/cat/7.png is damaged or truncated")
    assert not (tmp_path / "run").exists()
    assert train.main([*options, "--data.on_bad_image", "skip"]) == 0
    assert "Left out 1 images that cannot be used: see data.json." in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (record["train_size"], record["bad_images_count"]) == (23, 1)
    rows = (tmp_path / "run" / "ubn-seed0" / "eval.jsonl").read_text().splitlines()
    assert [json.loads(row)["bad_images"] for row in rows] == [1, 1]
    assert evaluate.main([str(tmp_path / "run")]) == 0


@pytest.mark.skipif(not SHARED.is_file(), reason="CIFAR-10 (JPEG) is not beside the checkout")
def test_sample_of_cifar(tmp_path):
    with zipfile.ZipFile(SHARED) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        classes = sorted({name.split("/")[1] for name in names})
        for name in classes:
            of_class = [n for n in names if n.split("/")[1] == name]
            for split, part in {"train": of_class[:20], "test": of_class[20:30]}.items():
                for member in part:
                    path = tmp_path / "sample" / split / name / Path(member).name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(member))
    dataset = load(tmp_path / "sample")
    assert (dataset.train_size, dataset.test_size, dataset.num_classes) == (200, 100, 10)
    assert dataset.train_images.shape[1:] == (32, 32, 3)
    assert dataset.record()["max_shift"] == 4
    first = min((tmp_path / "sample" / "train" / classes[0]).iterdir())
    assert np.abs(dataset.train_images[0] - np.asarray(Image.open(first)).astype(int)).max() <= 1
    images = jax.jit(dataset.augment)(jax.random.key(0), dataset.train_images[:16])
    assert images.shape == (16, 32, 32, 3)
    assert abs(float(dataset.standardize(dataset.train_images).mean())) < 1e-5
