"""Checkpoints: what is saved comes back bit by bit, wherever it is put; damage is noticed."""

import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoint, CheckpointError, Checkpoints
from tests.experiments.common.storage import longest_file
from tests.experiments.training.checkpoint.states import assert_equal, make_state, save_all


def test_everything_comes_back(tmp_path):
    saved = Checkpoint(
        state=make_state(7),
        data={"epoch": 1, "batch": 3},
        records={"train.jsonl": 12},
        config={"seeds": (1, 2)},
        loop={"seconds": 0.1},
        arrays={"snapshot": {"a": np.arange(3.0)}},
        accuracy=0.75,
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.save(saved)
        checkpoints.wait()
        assert checkpoints.saved_step == checkpoints.best_step == 7
    found = checkpoint.restore(
        tmp_path / "c",
        make_state(1),
        arrays={"snapshot": {"a": np.zeros(3)}, "absent": np.zeros(3)},
    )
    assert_equal(found.state, saved.state)
    assert jnp.all(jax.random.bits(found.state.key) == jax.random.bits(saved.state.key))
    np.testing.assert_array_equal(found.arrays["snapshot"]["a"], np.arange(3.0))
    assert list(found.arrays) == ["snapshot"]
    assert found.step == 7
    assert (found.data, found.records) == (saved.data, saved.records)
    assert found.config == {"seeds": [1, 2]}
    assert (found.loop, found.accuracy) == (saved.loop, saved.accuracy)


def test_saving_does_not_wait_for_later_updates(tmp_path):
    """What is donated to the next update while it is being saved is saved as it was."""
    state = make_state(3)
    expected = checkpoint.state_arrays(state)
    update = jax.jit(
        lambda s: s.replace(params=jax.tree.map(lambda x: -x, s.params)), donate_argnums=0
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Checkpoint(state))
        for _ in range(5):
            state = update(state)
    found = checkpoint.restore(tmp_path, make_state(0)).state
    jax.tree.map(np.testing.assert_array_equal, checkpoint.state_arrays(found), expected)


def test_newest_and_best_are_kept(tmp_path):
    accuracies = [0.1, 0.9, 0.5, 0.9, 0.2, None, 0.3, None]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, accuracy in enumerate(accuracies):
            checkpoints.save(Checkpoint(make_state(step), accuracy=accuracy))
        checkpoints.wait()
        assert checkpoints.best_step == 3
        assert list(checkpoints.steps) == [3, 6, 7]
    assert checkpoint.saved_steps(tmp_path) == [3, 6, 7]
    save_all(tmp_path, 8, keep=2)
    assert checkpoint.saved_steps(tmp_path) == [3, 7, 8]


def test_a_state_that_was_not_evaluated_is_replaced_when_it_is(tmp_path):
    save_all(tmp_path, 0, 4)
    save_all(tmp_path, 4, accuracies=[0.5])
    with Checkpoints(tmp_path) as checkpoints:
        assert list(checkpoints.steps) == [0, 4]
        assert checkpoints.best_step == 4
    assert checkpoint.restore(tmp_path, make_state()).accuracy == 0.5
    # With no other checkpoint to fall back on, what is there stays.
    save_all(tmp_path / "one", 4)
    save_all(tmp_path / "one", 4, accuracies=[0.5])
    assert checkpoint.restore(tmp_path / "one", make_state()).accuracy is None


@pytest.mark.parametrize("step", [3, 4])
def test_a_step_is_not_saved_twice(tmp_path, step):
    save_all(tmp_path, 4)
    with Checkpoints(tmp_path) as checkpoints:
        message = (
            rf"`step` \(={step}\) was not saved in .*: its latest checkpoint is of step 4. Save"
        )
        with pytest.raises(CheckpointError, match=message):
            checkpoints.save(Checkpoint(make_state(step)))


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    save_all(tmp_path, 0)
    bad = make_state(1)
    bad = bad.replace(params=jax.tree.map(lambda x: x * np.nan, bad.params))
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.save(Checkpoint(bad))
    assert checkpoint.restore(tmp_path, bad).step == 0


def test_missing_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoint: there is no such folder"):
        checkpoint.restore(tmp_path / "none", make_state())
    with pytest.raises(CheckpointError, match=r"has no complete checkpoint\. .* or repeat the run"):
        checkpoint.restore(tmp_path, make_state())
    assert checkpoint.newest(tmp_path, make_state(), {}, nothing, print) is None


def nothing(found: Checkpoint) -> None:
    pass


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": lambda path: path.unlink(),
    "flipped": lambda path: path.write_bytes(flip(path.read_bytes())),
}


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    save_all(folder, 3, 6, accuracies=[0.2, 0.4])
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_the_one_before_is_used(two, tmp_path, damage):
    """Every file of the newest in turn: what is restored is what was saved, of either step."""
    noticed = set()
    for path in sorted(p.relative_to(two) for p in (two / "6").rglob("*") if p.is_file()):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(two, folder)
        DAMAGES[damage](folder / path)
        messages = []
        found = checkpoint.newest(folder, make_state(), {}, nothing, messages.append)
        assert_equal(found.state, make_state(found.step))
        # Some files are not read back, and not every byte of the others means something.
        if found.step == 3:
            assert found.data == {"batch": 3}
            (message,) = messages
            assert message.startswith("Warning: ")
            assert str(folder / "6") in message
            assert message.endswith(f"put aside as {folder / 'damaged-6'}.")
            assert (folder / "damaged-6" / path.relative_to("6")).exists() == (damage != "deleted")
            with Checkpoints(folder) as checkpoints:  # The step is free again.
                assert checkpoints.save(Checkpoint(make_state(6)))
            noticed.add("/".join(part for part in path.parts[1:] if len(part) < 32))
        else:
            assert messages == []
    assert noticed >= {"about/metadata", "state/manifest.ocdbt", "state/ocdbt.process_0/d"}, noticed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_said_of_damage(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "copy"))
    data = max((folder / "6" / "state").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    step = "the checkpoint of update 6, "
    with pytest.raises(CheckpointError, match=rf"{step}.*/6, cannot be read: .* repeat the run"):
        checkpoint.restore(folder, make_state())
    # Orbax loads this silently.
    data.write_bytes(flip(content))
    with pytest.raises(CheckpointError, match=r"update 6 is damaged: the SHA-256 of state/\S+, in"):
        checkpoint.restore(folder, make_state())
    about = folder / "3" / "about" / "metadata"
    about.write_text(about.read_text().replace('"batch": 3', '"batch": 4'))
    message = r"update 3 is damaged: the SHA-256 of its description, in .*/3/about, is not the one"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.restore(folder, make_state(), 3)
    message = "none of the checkpoints in .* can be used: .* update 6 .* update 3 .*from a copy"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.newest(folder, make_state(), {}, nothing, print)
    assert checkpoint.saved_steps(folder) == [3, 6]  # They are not put aside then.


def test_a_changed_accuracy_of_an_older_one(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "copy"))
    (folder / "3" / "metrics" / "metrics").write_text('{"accuracy": 0.9}')
    messages = []
    assert checkpoint.newest(folder, make_state(), {}, nothing, messages.append).step == 6
    assert "has accuracy 0.9, but 0.2 was saved. It was put aside" in messages[0]
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best_step == 6


def test_a_checkpoint_that_is_good_but_no_use(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "copy"))

    def check(found: Checkpoint) -> None:
        if found.step == 6:
            raise CheckpointError("its records are gone")

    assert checkpoint.newest(folder, make_state(), {}, check, print).step == 3


def test_a_process_killed_while_it_deletes_leaves_no_damaged_checkpoint(tmp_path, monkeypatch):
    """A checkpoint to be deleted is renamed first: it is there, whole, or not there."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **options: None)  # Killed before that.
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            for step in (1, 2, 3):
                checkpoints.save(Checkpoint(make_state(step)))
    assert checkpoint.saved_steps(tmp_path) == [3]
    deleted = sorted(path.name for path in (tmp_path / "deleted").iterdir())
    assert deleted == ["1", "2"]
    shutil.rmtree(tmp_path / "deleted" / "2" / "state")  # Killed in the middle of it.
    messages = []
    found = checkpoint.newest(tmp_path, make_state(), {}, lambda found: None, messages.append)
    assert (found.step, messages) == (3, [])
    with Checkpoints(tmp_path, keep=1):
        assert not (tmp_path / "deleted").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_cannot_be_written(tmp_path, capfd):
    """As on a full disk, wherever the test runs: no file may be longer than this."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Checkpoint(make_state(0)))
    checkpoints.wait()
    with longest_file(8000):
        assert checkpoints.save(Checkpoint(make_state(2)))
        with pytest.raises(CheckpointError) as caught:
            checkpoints.close()
    message = str(caught.value)
    assert "the checkpoint of update 2 could not be written in" in message
    assert "File too large (file " in message
    assert (
        "The one before, of update 0, is complete; allow longer files (ulimit -f), then" in message
    )
    assert len(message) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert_equal(checkpoint.restore(tmp_path, make_state(1)).state, make_state(0))
    assert "Traceback" not in capfd.readouterr().err


def test_the_first_error_is_the_one_that_is_raised(tmp_path):
    def work():
        with Checkpoints(tmp_path) as checkpoints, longest_file(8000):
            checkpoints.save(Checkpoint(make_state(2)))
            checkpoints.wait()

    def fail():
        with Checkpoints(tmp_path / "other") as checkpoints, longest_file(8000):
            checkpoints.save(Checkpoint(make_state(2)))
            time.sleep(0.5)
            raise KeyError

    with pytest.raises(CheckpointError, match="There is none before it; allow longer files"):
        work()
    with pytest.raises(KeyError):
        fail()
