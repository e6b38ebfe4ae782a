"""One step under every transform: what it computes does not depend on how it is spread."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from experiments.benchmarks.pod_check.collectives import collectives, total_bytes
from experiments.methods import Context
from experiments.training.program import make_model
from tests.experiments.training.parallel import job

# float32 rounds to 6e-8 of a number; three updates and sums in another order make it 1e-6 of
# numbers that are at most 10 here.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], **tolerance: Any):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, err_msg=name, **(tolerance or TOLERANCE))


@functools.cache
def one_device() -> dict[str, np.ndarray]:
    return job.run(job.configure(num_devices=1), "ubn", dataset=job.AUGMENTED, test=True)


@pytest.mark.parametrize("mode", job.TRANSFORMS)
def test_eight_devices_are_one(mode):
    """Loss, gradients, running statistics, parameters; an evaluation that counts each image once.

    Each image is flipped and shifted by random numbers of its own, on whatever device it is.
    """
    config = job.configure(parallel=mode)
    actual = job.run(config, "ubn", dataset=job.AUGMENTED, init=mode == "jit", test=True)
    assert one_device()["['evaluation']['count']"] == job.TESTED
    assert_same(actual, one_device())


@functools.cache
def gradient(norm: str) -> Any:
    """Loss, running statistics and gradient of images on one device; no step, no transform."""
    config = job.configure(num_devices=1)
    model = make_model(config, norm, 10, Context())

    @jax.jit
    def compute(params, batch_stats, images, labels):
        def loss(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updated = model.apply(variables, images, True, mutable=["batch_stats"])
            chosen = jax.nn.log_softmax(logits)[np.arange(len(images)), labels]
            return -chosen.mean(), updated["batch_stats"]

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, updated, grads

    return compute


@functools.cache
def reference(norm: str, groups: int, accumulate: int = 1) -> dict[str, np.ndarray]:
    """The job in loops: each group of images of each micro-batch on its own, on one device."""
    state = job.initial_state(job.make_program(job.configure(num_devices=1), norm), norm)

    def mean(trees):
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)

    numbers: dict[str, Any] = {}
    # Image i of a device is in micro-batch i % accumulate; a group has neighbouring devices.
    per_device = job.BATCH // 8
    index = np.arange(job.BATCH).reshape(groups, -1)
    micro = [index[:, index[0] % per_device % accumulate == j] for j in range(accumulate)]
    for i, (images, labels) in enumerate(zip(job.IMAGES, job.LABELS, strict=True)):
        grads, losses = [], []
        for rows in micro:
            parts = [
                gradient(norm)(state.params, state.batch_stats, images[r], labels[r]) for r in rows
            ]
            loss, batch_stats, grad = mean(parts)
            state = state.replace(batch_stats=batch_stats)
            grads.append(grad)
            losses.append(loss)
        state = state.apply_gradients(grads=mean(grads))
        numbers[f"metrics{i}"] = {"loss": mean(losses)}
    return job.flatten({**numbers, "batch_stats": state.batch_stats, "params": state.params})


@pytest.mark.parametrize(
    ("mode", "statistics", "groups", "norm", "accumulate"),
    [
        ("jit", "grouped", 4, "ubn", 2),
        ("jit", "per_device", 8, "bn", 1),
        ("pmap", "grouped", 4, "ubn", 2),
        ("pmap", "per_device", 8, "bn", 1),
        ("shard_map", "grouped", 4, "ubn", 2),
        ("shard_map", "per_device", 8, "bn", 2),
    ],
)
def test_statistics_of_groups_and_micro_batches(mode, statistics, groups, norm, accumulate):
    size = 8 // groups if statistics == "grouped" else None
    options = {"parallel": mode, "statistics": statistics, "statistics_group": size}
    config = job.configure(accumulate=accumulate, penalty=0.0, **options)
    numbers = job.run(config, norm)
    expected = reference(norm, groups, accumulate)
    assert_same({name: numbers[name] for name in expected}, expected)


def test_groups_and_micro_batches_are_not_alike():
    """Else the test above would notice nothing."""
    for one, other in (
        (reference("ubn", 4, 2), reference("bn", 4, 2)),
        (reference("bn", 8, 1), reference("bn", 8, 2)),
        (reference("bn", 8, 2), reference("bn", 4, 2)),
    ):
        names = one.keys() & other.keys()
        assert max(np.abs(one[name] - other[name]).max() for name in names) > 1e-3


def test_micro_batches_without_batch_statistics_change_nothing():
    assert_same(job.one_device("none", accumulate=4), job.one_device("none"))


def program_text(config: Any, norm: str) -> str:
    program = job.make_program(config, norm)
    batch = program.train_step.place({"image": job.IMAGES[0], "label": job.LABELS[0]})
    state = jax.eval_shape(program.init, jax.random.key(0), job.IMAGES[0])
    return program.train_step.function.lower(state, batch).compile().as_text()


# Parameters: kernel and bias of conv and head, scale and bias of the norm; statistics: 2 x 8.
NUMBERS = (9 * 8 + 8) + (8 * 10 + 10) + 2 * 8, 2 * 8


# The programs of two tests above: GSPMD adds up in every micro-batch, shard_map only once.
@pytest.mark.parametrize(("mode", "accumulate"), [("jit", 1), ("shard_map", 2)])
def test_devices_exchange_gradients_once_and_no_images(mode, accumulate):
    """With statistics of each device, all there is to add are gradients, statistics, metrics."""
    options = {"parallel": mode, "statistics": "per_device", "accumulate": accumulate}
    found = collectives(program_text(job.configure(penalty=0.0, **options), "bn"))
    assert {c.kind for c in found} == {"all-reduce"}
    needed = 4 * (sum(NUMBERS) + 3)
    assert needed - 64 <= total_bytes(found) <= needed + 64
