"""ImageNet's pipeline on records like ImageNet's, made here without tensorflow."""

import io
import itertools
import json
import time

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, train
from experiments.benchmarks.records import write_records
from tests.experiments.data.imagenet_records import (
    CLASSES,
    TEST,
    TRAIN,
    encode,
    epoch_of,
    load,
    records,
    settled,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    splits = {"train": records(TRAIN, "train"), "validation": records(TEST, "val")}
    write_records(root, "imagenet2012", splits, CLASSES)
    return root


def test_every_image_once_per_epoch_and_host(root):
    dataset = load(root)
    whole = epoch_of(dataset)
    assert whole.shape == (6, 4)
    assert len(set(whole.ravel())) == 24  # The two of an incomplete batch are left out.
    parts = [epoch_of(dataset, host=host, hosts=2) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_order_depends_on_seed_and_epoch_alone(root):
    first = epoch_of(load(root))
    np.testing.assert_array_equal(epoch_of(load(root, threads=1)), first)
    assert np.any(epoch_of(load(root), epoch=1) != first)
    assert np.any(epoch_of(load(root), seed=1) != first)


def textured(root):
    """Images whose crops differ."""
    rng = np.random.default_rng(0)
    splits = {
        split: [
            (f"{split}{i}.JPEG", encode(rng.integers(0, 256, (48, 64, 3), np.uint8)), 0)
            for i in range(9)
        ]
        for split in ("train", "validation")
    }
    write_records(root, "imagenet2012", splits, CLASSES)
    return load(root)


def test_goes_on_after_a_restart_bit_for_bit(tmp_path):
    dataset = textured(tmp_path)
    pipeline = dataset.pipeline(5, 2)
    batches = itertools.chain(*(pipeline.batches(epoch) for epoch in range(3)))
    seen, states = [], []
    for batch in batches:
        assert isinstance(batch["image"], jax.Array)
        seen.append(np.asarray(batch["image"]))
        states.append(json.loads(json.dumps(pipeline.state())))
    pipeline.close()
    assert len(seen) == 12
    assert len({image.tobytes() for image in seen}) == 12  # No crop comes twice.
    for done in (1, 3, 4, 6, 11):
        other = load(tmp_path, threads=1).pipeline(5, 2)
        other.restore(states[done - 1])
        start = states[done - 1]["epoch"]
        rest = [
            np.asarray(batch["image"])
            for epoch in range(start, 3)
            for batch in other.batches(epoch)
        ]
        other.close()
        np.testing.assert_array_equal(rest, seen[done:])


def test_other_files_are_told_apart(tmp_path):
    """Without reading all of them: a resumed run is refused others."""
    names = ("train_files_sha256", "test_files_sha256")
    rng = np.random.default_rng(0)
    many = [(rng.bytes(1000 + i), 0) for i in range(200)]
    # One byte more, in a record far from the end of the file.
    longer = [*many[:3], (many[3][0] + b"x", 0), *many[4:]]
    few = [(f"val_{i}.JPEG", bytes(10), 0) for i in range(2)]

    def sums(number, train):
        named = [(f"{i}.JPEG", *record) for i, record in enumerate(train)]
        folder = tmp_path / str(number)
        write_records(folder, "imagenet2012", {"train": named, "validation": few}, CLASSES)
        record = load(folder).record()
        return [record[name] for name in names]

    before, again, other, fewer = map(sums, range(4), (many, many, longer, many[1:]))
    (path,) = (tmp_path / "0").rglob("*train.array_record*")
    assert path.stat().st_size > 1 << 17
    assert before == again
    for changed in (other, fewer):
        assert changed[0] != before[0]
        assert changed[1] == before[1]


def test_mirroring_can_be_switched_off(tmp_path):
    dataset, without = textured(tmp_path), load(tmp_path, flip=False)
    assert [d.record()["flip"] for d in (dataset, without)] == [True, False]
    mirrored = 0
    for epoch in range(4):
        a, b = (d.train_batch(0, epoch, np.arange(9))["image"] for d in (dataset, without))
        for with_flip, plain_one in zip(a, b, strict=True):
            same = np.array_equal(with_flip, plain_one)
            assert same or np.array_equal(with_flip, plain_one[:, ::-1])
            mirrored += not same
    # 18 of 36 are expected, with a standard deviation of 3.
    assert 6 < mirrored < 30


def test_evaluation_sees_every_image_once_in_the_middle(tmp_path):
    """64x64 pixels of 72x90 (72 = 64 + the margin of 8 that is 32 of 256): nothing is resized."""
    rng = np.random.default_rng(0)
    contents = [encode(rng.integers(0, 256, (256, 260, 3), np.uint8)) for _ in range(TEST)]
    splits = {
        "train": records(4, "train"),
        "validation": [(f"v{i}.JPEG", content, i % 3) for i, content in enumerate(contents)],
    }
    write_records(tmp_path, "imagenet2012", splits, CLASSES)
    dataset = load(tmp_path, image_size=224)
    parts = [list(dataset.test_batches(4, host, 2)) for host in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    found = {
        batch["image"][i].tobytes(): batch["label"][i]
        for batch in itertools.chain(*parts)
        for i in np.flatnonzero(batch["weight"])
    }
    assert len(found) == TEST
    for label, content in enumerate(contents):
        expected = np.asarray(Image.open(io.BytesIO(content)))[16:240, 18:242]
        assert found[expected.tobytes()] == label % 3
    total = sum(batch["weight"].sum() for batch in itertools.chain(*parts))
    assert total == TEST


def test_input_of_the_network(root):
    dataset = load(root)
    batch = next(dataset.test_batches(4))
    x = dataset.standardize(batch["image"])
    expected = (batch["image"] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x, expected, atol=1e-5)
    np.testing.assert_array_equal(dataset.augment(jax.random.key(0), batch["image"]), x)


def test_close_stops_the_threads(root):
    pipeline = load(root).pipeline(0, 4)
    batches = pipeline.batches(0)
    next(batches)
    assert settled(3) == 3
    pipeline.close()
    pipeline.close()
    assert settled(0) == 0
    batches = load(root).test_batches(4)
    next(batches)
    batches.close()
    assert settled(0) == 0


def test_memory_is_bounded(root):
    """A reader who stops is waited for: as many batches are made ahead as there are threads."""
    dataset = load(root, threads=2)
    made = []
    rows = np.arange(100).reshape(100, 1)
    batches = dataset.in_background(rows, lambda row: made.append(row) or {"label": row})
    next(batches)
    before = -1
    while len(made) != before:
        before = len(made)
        time.sleep(0.2)
    batches.close()
    assert len(made) <= 4  # One is taken, two wait, and one may be on its way.


@pytest.mark.slow
def test_trains_from_the_command_line(root, tmp_path):
    options = (
        f"--data.dataset imagenet2012 --data.data-dir {root} --data.image-size 16 "
        f"--run-dir {tmp_path / 'run'} --norms bn ubn --seeds 0 --evals-per-epoch 2 "
        "--model.blocks 1 --model.widths 4 --optim.epochs 2 --optim.batch-size 8 "
        "--data.on-bad-image skip"
    )
    assert train.main(options.split()) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["data"] == "ImageNet 2012 (26 training and 11 validation images, 16x16)"
    rows = {
        norm: (tmp_path / "run" / f"{norm}-seed0" / "train.jsonl").read_text().splitlines()
        for norm in ("bn", "ubn")
    }
    assert [len(r) for r in rows.values()] == [6, 6]
    # Both see the same images: with alpha 0 and a learning rate of 0 the first losses are equal.
    losses = [json.loads(r[0])["loss"] for r in rows.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert settled(0) == 0
    assert evaluate.main([str(tmp_path / "run")]) == 0
