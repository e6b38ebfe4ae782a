"""What does not fit the devices is said before anything is compiled."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.config.parallel import DevicesConfig
from experiments.training import steps
from experiments.training.parallel import make_transform
from experiments.training.parallel.batch_size import check_batch_size, round_up
from experiments.training.parallel.ghost import by_group
from tests.experiments.training.parallel import job


@pytest.mark.parametrize(
    ("batch_size", "devices", "accumulate", "message"),
    [
        (100, 8, 1, r"`batch_size` \(=100\) .* of 8 \(8 devices\); the nearest are 96 and 104"),
        (
            100,
            8,
            2,
            r"of 16 \(8 devices x 2 micro-batches\); the nearest are 96 and 112",
        ),
        (9, 1, 2, r"a multiple of 2 \(2 micro-batches\); the nearest are 8 and 10\."),
        (6, 8, 1, r"a multiple of 8 \(8 devices\); the smallest is 8\."),
    ],
)
def test_batch_sizes_that_do_not_fit(batch_size, devices, accumulate, message):
    with pytest.raises(ValueError, match=message):
        check_batch_size(batch_size, devices, accumulate)


def test_nearest_sizes_fit():
    for size in (96, 104):
        check_batch_size(size, 8)
    check_batch_size(112, 8, 2)
    assert round_up(128, 8) == 128
    assert round_up(129, 8) == 136


def test_training_says_which_batch_sizes_fit(tmp_path, capsys):
    arguments = ["--optim.batch-size", "60", "--run-dir", str(tmp_path / "run")]
    assert train.main(arguments) == 1
    assert (
        "must be a multiple of 8 (8 devices); the nearest are 56 and 64" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"parallel": "vmap"},
            r"`parallel` \(='vmap'\) is unknown; choose from auto, jit, pmap",
        ),
        (
            {"statistics": "local"},
            r"`statistics` \(='local'\) .* from synchronised, grouped",
        ),
        ({"precision": "float16"}, r"`precision` \(='float16'\) .* choose from float32, bfloat16"),
        (
            {"distributed": "slurm"},
            r"`distributed` \(='slurm'\) .* choose from auto, none",
        ),
        ({"num_devices": 0}, r"`num_devices` \(=0\) must be a positive number"),
        ({"statistics": "grouped"}, r"`statistics_group` \(=None\) must be given if, and only if"),
        ({"statistics_group": 2}, r"\(=2\) must be given if, .* `statistics` \(='synchronised'\)"),
        (
            {"statistics": "grouped", "statistics_group": -1},
            r"`statistics_group` \(=-1\) must be a positive number",
        ),
        (
            {"process_id": 1},
            r"`process_id` \(=1\) alone does not start several processes",
        ),
        (
            {"distributed": "none", "num_processes": 2},
            r"`num_processes` \(=2\) must not be given with `distributed` 'none'",
        ),
        (
            {"coordinator_address": "here", "num_processes": 2, "process_id": 0},
            r"`coordinator_address` \(='here'\) must be HOST:PORT",
        ),
        (
            {"coordinator_address": "here:99", "num_processes": 2, "process_id": 2},
            r"`process_id` \(=2\) must be at least 0 and less than `num_processes` \(=2\)",
        ),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DevicesConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_devices": 9}, r"`num_devices` \(=9\) must be at most .* there are: 8 \(cpu\)"),
        (
            {"statistics": "grouped", "statistics_group": 3},
            r"`statistics_group` \(=3\) must divide the number of devices: 8; .* 1, 2, 4, 8",
        ),
    ],
)
def test_options_that_do_not_fit_the_devices(options, message):
    with pytest.raises(ValueError, match=message):
        make_transform(DevicesConfig(**options))


@dataclasses.dataclass(frozen=True)
class Device:
    """What a transform asks a device, of processes that are not there."""

    process_index: int
    id: int
    device_kind: str = "cpu"


def test_devices_of_a_process_are_neighbours():
    devices = [Device(process, 2 * i + process) for i in range(4) for process in range(2)]
    config = DevicesConfig(statistics="grouped", statistics_group=4)
    mesh = make_transform(config, devices).mesh
    assert [[d.process_index for d in row] for row in mesh.devices] == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match=r"`num_devices` \(=4\) must not be given with several"):
        make_transform(DevicesConfig(num_devices=4), devices)


def test_micro_batches_must_divide_the_images_of_a_device():
    program = job.make_program(job.configure(num_devices=1), "none")
    state = jax.eval_shape(program.init, jax.random.key(0), job.IMAGES[0])
    batch = {"image": job.IMAGES[0], "label": job.LABELS[0]}
    with pytest.raises(ValueError, match=r"`accumulate` \(=3\) must divide .* of a device: 32"):
        jax.eval_shape(partial(steps.train_step, accumulate=3), state, batch)


def test_a_batch_of_another_size(monkeypatch):
    program = job.make_program(job.configure(), "none")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="a batch has 8 images, but must have 32, or 16 of each"):
        program.train_step.place({"image": job.IMAGES[0, :8]})


@pytest.mark.parametrize("mode", job.TRANSFORMS)
def test_what_is_on_its_devices_is_left_there(mode):
    """A pipeline may place batches ahead of time; the step places them again."""
    step = job.make_program(job.configure(parallel=mode), "none").train_step
    placed = step.place({"image": job.IMAGES[0], "label": job.LABELS[0]})
    again = step.place(placed)
    assert all(again[name] is placed[name] for name in placed)
    assert len(placed["image"].addressable_shards) == 8
    whole = np.concatenate([np.asarray(s.data) for s in placed["label"].addressable_shards], None)
    np.testing.assert_array_equal(whole.reshape(-1), job.LABELS[0])


def test_groups_and_other_collections():
    norm = nn.BatchNorm()
    x = jnp.asarray(np.float32([[1], [3], [10], [30]]))
    variables = norm.init(jax.random.key(0), x, use_running_average=True)

    def apply(variables, x, train, mutable):
        return norm.apply(variables, x, use_running_average=not train, mutable=mutable)

    grouped = by_group(apply, 2)
    with pytest.raises(ValueError, match=r"`mutable` \(=True\) must be False or \['batch_stats'\]"):
        grouped(variables, x, train=True, mutable=True)
    y, updated = grouped(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[-1], [1], [-1], [1]], atol=1e-4)
    # New running mean: 0.99 * 0 + 0.01 * (2 + 20) / 2.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.11], rtol=1e-6)
    np.testing.assert_array_equal(
        grouped(variables, x, train=False), apply(variables, x, False, False)
    )
