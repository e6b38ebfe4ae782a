"""The order of the training images, and going on from any place in it."""

import itertools
import json
import re

import jax
import numpy as np
import pytest

from experiments.data.pipeline import Pipeline, Position, eval_batches, gather, host_share

N = 50
IMAGES = np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1)
LABELS = np.arange(N, dtype=np.int32)


def pipeline(seed=0, batch_size=8, host=0, hosts=1, place=None, images=N):
    position = Position(images, seed, batch_size, host, hosts)
    return Pipeline(position, lambda epoch, rows: gather(IMAGES, LABELS, rows), place)


def epoch_of(pipe, epoch=0):
    """The labels of each batch; images and labels belong together."""
    batches = list(pipe.batches(epoch))
    for batch in batches:
        np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])
    return np.stack([batch["label"] for batch in batches])


@pytest.mark.parametrize("hosts", [1, 2, 5])
def test_every_image_once_per_epoch(hosts):
    """Over all hosts; 50 images are 5 batches of 10."""
    parts = [epoch_of(pipeline(batch_size=10, host=h, hosts=hosts)) for h in range(hosts)]
    assert all(part.shape == (5, 10 // hosts) for part in parts)
    assert sorted(np.concatenate([part.ravel() for part in parts])) == list(range(N))


def test_images_that_fill_no_batch_are_left_out():
    seen = epoch_of(pipeline(batch_size=8))
    assert seen.shape == (6, 8)
    assert len(set(seen.ravel())) == 48
    # Others are left out in another epoch.
    assert set(seen.ravel()) != set(epoch_of(pipeline(batch_size=8), epoch=1).ravel())


def test_order_depends_on_seed_and_epoch_alone():
    pipe = pipeline()
    first, second = epoch_of(pipe, 0), epoch_of(pipe, 1)
    assert np.any(first != second)
    np.testing.assert_array_equal(epoch_of(pipeline(), 1), second)
    np.testing.assert_array_equal(epoch_of(pipe, 0), first)
    assert np.any(epoch_of(pipeline(seed=1), 0) != first)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_every_batch(hosts):
    """Joined in the order of the hosts, their parts are the batches of one host."""
    parts = [epoch_of(pipeline(host=h, hosts=hosts)) for h in range(hosts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), epoch_of(pipeline()))


@pytest.mark.parametrize("place", [None, jax.device_put])
def test_goes_on_at_every_position(place):
    whole = np.concatenate([epoch_of(pipeline(), epoch) for epoch in (0, 1)])
    pipe = pipeline(place=place)
    batches = itertools.chain(pipe.batches(0), pipe.batches(1))
    for done in range(1, 12):
        np.testing.assert_array_equal(next(batches)["label"], whole[done - 1])
        state = json.loads(json.dumps(pipe.state()))
        other = pipeline(place=place)
        other.restore(state)
        assert other.state() == state
        epoch, batch = divmod(done, 6) if done % 6 else (done // 6 - 1, 6)
        assert (state["epoch"], state["batch"]) == (epoch, batch)
        rest = [b["label"] for e in range(epoch, 2) for b in other.batches(e)]
        np.testing.assert_array_equal(np.reshape(rest, (-1, 8)), whole[done:])


def test_another_number_of_hosts_goes_on():
    pipe = pipeline()
    next(pipe.batches(0))
    parts = []
    for host in range(4):
        part = pipeline(host=host, hosts=4)
        part.restore(pipe.state())
        parts.append(epoch_of(part))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), epoch_of(pipeline())[1:])


def test_placed_one_batch_ahead():
    placed = []

    def place(batch):
        placed.append(batch)
        return jax.device_put(batch)

    pipe = pipeline(place=place)
    batches = pipe.batches(0)
    for taken in range(1, 7):
        batch = next(batches)
        assert isinstance(batch["image"], jax.Array)
        assert len(placed) == min(taken + 1, 6)
        assert pipe.state()["batch"] == taken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "the state of the data has `seed` 1, but this run 0: the images would come"),
        ({"images": 49}, "has `images` 49, but this run 50: the images would come in another"),
        ({"batch_size": 4}, "has `batch_size` 4, but this run 8"),
        ({"batch": 7}, "is damaged: `epoch` (=0) and `batch` (=7) must be at least 0, `batch` at"),
        ({"epoch": -1}, "is damaged: `epoch` (=-1) and `batch` (=0)"),
    ],
)
def test_a_state_of_another_order_is_refused(change, message):
    pipe = pipeline()
    with pytest.raises(ValueError, match=re.escape(message)):
        pipe.restore(pipe.state() | change)
    assert pipe.state() == pipeline().state()


def test_close_ends_the_batches():
    pipe = pipeline()
    batches = pipe.batches(0)
    next(batches)
    pipe.close()
    pipe.close()
    assert list(batches) == []


@pytest.mark.parametrize(("batch_size", "hosts", "nearest"), [(10, 4, "8 or 12"), (3, 4, "4")])
def test_hosts_must_divide_the_batch(batch_size, hosts, nearest):
    message = (
        rf"`batch_size` \(={batch_size}\) must be divisible by .*: {hosts}. .* is: {nearest}\."
    )
    with pytest.raises(ValueError, match=message):
        host_share(batch_size, 0, hosts)


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("images", [50, 48, 3])
def test_evaluation_counts_every_image_once(images, hosts):
    """Hosts have the same number of batches, of the same shape; padding has weight 0."""
    parts = [
        list(eval_batches(IMAGES[:images], LABELS[:images], 8, host, hosts))
        for host in range(hosts)
    ]
    assert {len(part) for part in parts} == {-(-images // 8)}
    seen = []
    for batch in itertools.chain(*parts):
        assert batch["image"].shape == (8 // hosts, 1, 1, 1)
        counts = batch["weight"] == 1
        assert set(batch["weight"]) <= {0.0, 1.0}
        seen.extend(batch["label"][counts])
        np.testing.assert_array_equal(batch["image"].ravel()[counts], batch["label"][counts])
    assert sorted(seen) == list(range(images))
