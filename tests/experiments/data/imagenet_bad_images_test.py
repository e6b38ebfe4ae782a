"""Images of ImageNet's pipeline that cannot be used, or must be converted."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks.records import write_records
from tests.experiments.data.imagenet_records import (
    CLASSES,
    TEST,
    TRAIN,
    epoch_of,
    load,
    number_of,
    numbers,
    plain,
    records,
    settled,
)

BAD = {
    "truncated": ({"content4": plain(4)[:-99]}, "is damaged or truncated ("),
    "not an image": ({"content4": b"hello"}, "is damaged or truncated (5 bytes)."),
    "label": ({"label4": 3}, "has label 3, but must have one from 0 to 2."),
}


@pytest.fixture(params=BAD)
def spoiled(request, tmp_path):
    """Training image 4 and test image 4 are bad."""
    changes, message = BAD[request.param]
    splits = {
        "train": records(TRAIN, "train", **changes),
        "validation": records(TEST, "val", **changes),
    }
    folder = write_records(tmp_path, "imagenet2012", splits, CLASSES + 1)
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"numClasses": "4"', '"numClasses": "3"'))
    return tmp_path, folder, message


def test_bad_images_are_named(spoiled):
    root, folder, message = spoiled
    dataset = load(root)
    named = f"image train_4.JPEG (split train of {folder}) {message}"
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        [epoch_of(dataset, epoch) for epoch in range(2)]  # It may be left over in one.
    assert "To leave such images out and count them: --data.on-bad-image skip." in str(error.value)
    named = f"image val_4.JPEG (split validation of {folder}) {message}"
    with pytest.raises(ValueError, match=re.escape(named)):
        list(dataset.test_batches(4))
    assert settled(0) == 0


def test_bad_images_are_skipped_and_counted(spoiled):
    """In training the next takes its place, in evaluation it does not count."""
    root, _, message = spoiled
    dataset = load(root, on_bad_image="skip")
    # Records are shuffled when they are written.
    names = [example.name for example in dataset.train.read(range(TRAIN))]
    expected = [int(name.removeprefix("train_").removesuffix(".JPEG")) for name in names]
    expected[expected.index(4)] = expected[(expected.index(4) + 1) % TRAIN]
    (found,) = numbers([dataset.train_batch(0, 0, np.arange(TRAIN))])
    assert found.tolist() == expected
    batches = list(dataset.test_batches(4))
    assert sum(batch["weight"].sum() for batch in batches) == TEST - 1
    for batch in batches:
        for i in np.flatnonzero(batch["weight"]):
            assert number_of(batch["image"][i]) % CLASSES == batch["label"][i]
    reasons = dataset.record()["bad_images"]
    assert [reason.split(" (")[0] for reason in reasons] == [
        "image train_4.JPEG",
        "image val_4.JPEG",
    ]
    assert all(message in reason for reason in reasons)


def test_nothing_but_bad_images(tmp_path):
    splits = {name: [("a.JPEG", b"hello", 0)] for name in ("train", "validation")}
    write_records(tmp_path, "imagenet2012", splits, CLASSES)
    pipeline = load(tmp_path, on_bad_image="skip").pipeline(0, 1)
    with pytest.raises(ValueError, match=r"no image is left: image a\.JPEG .* The 100 before it"):
        next(pipeline.batches(0))
    pipeline.close()


def kinds():
    """Images that ImageNet has: a grayscale and a CMYK one; here, all of a value near 100."""
    for i, mode in enumerate(["L", "CMYK", "RGB"]):
        file = io.BytesIO()
        Image.fromarray(np.full((40, 50, 3), 100, np.uint8)).convert(mode).save(file, "JPEG")
        yield f"{mode}.JPEG", file.getvalue(), i


def test_grayscale_and_cmyk_are_converted_unless_forbidden(tmp_path):
    write_records(tmp_path, "imagenet2012", {"train": kinds(), "validation": kinds()}, CLASSES)
    (batch,) = load(tmp_path).test_batches(3)
    assert np.abs(batch["image"].astype(int) - 100).max() <= 2
    dataset = load(tmp_path, convert_images=False, on_bad_image="skip")
    (batch,) = dataset.test_batches(3)
    assert batch["weight"].sum() == 1
    assert {reason.split(")")[1].strip()[:12] for reason in dataset.bad.reasons()} == {
        "is grayscale",
        "is CMYK, but",
    }
