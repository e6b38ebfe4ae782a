"""Signals: training finishes its update, saves, and ends or goes on; and what if it cannot."""

import os
import signal
import threading
import time

import pytest

from experiments import train
from experiments.common.errors import Preempted
from experiments.common.files import read_rows
from experiments.training import checkpoint, preemption
from experiments.training.preemption import Preemption
from experiments.training.record import Recorder
from experiments.training.run import run_folder
from tests.experiments import jobs

OPTIONS = """
--norms bn --seeds 0 --evals-per-epoch 1 --checkpoint-every 9 --optim.epochs 2
--optim.batch-size 128 --model.blocks 1 --model.widths 4 --probe.every 0
"""
ARGUMENTS = OPTIONS.split()


@pytest.fixture
def exits(monkeypatch):
    """Status and message of a process that would have ended itself."""
    found, happened = [], threading.Event()

    def exit(status, message):
        found.append((status, message))
        happened.set()

    monkeypatch.setattr(preemption, "end", exit)
    return found, happened


def terminate(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def wait_until(happened):
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys, exits):
    run_dir = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    write = Recorder.write
    signals = [signal.SIGINT]

    def write_and_terminate(self, kind, rows):
        write(self, kind, rows)
        if kind == "eval":
            terminate(signals.pop(0))
            time.sleep(0.3)  # For the thread that notices; the updates here are faster.

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "write", write_and_terminate)
        assert train.main([*ARGUMENTS, "--run-dir", str(run_dir), "--resume", "auto"]) == 130
    output, error = capsys.readouterr()
    assert "SIGINT: saving, then stopping. Ctrl-C again ends at once." in error
    assert f"everything is saved. Continue with: --run-dir {run_dir} --resume auto" in output
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
    run = run_folder(run_dir, "bn", 0)
    (_, saved) = checkpoint.saved_steps(run / "checkpoints")
    assert saved == 11
    assert len(read_rows(run / "train.jsonl")) == saved
    assert not (run_dir / "summary.json").exists()
    # The same command goes on, and a third time there is nothing left to do.
    for text in (f"bn, seed 0: goes on after update {saved}", f"The run in {run_dir} is finished"):
        assert train.main([*ARGUMENTS, "--run-dir", str(run_dir), "--resume", "must"]) == 0
        output = capsys.readouterr().out
        assert text in output
        assert "test accuracy, %" in output
    assert [row["step"] for row in read_rows(run / "eval.jsonl")] == [11, 22]
    assert exits[0] == []


def test_what_cannot_be_saved_in_time(exits):
    found, happened = exits
    with Preemption(grace_seconds=0.05) as stop:
        stop.busy = True
        assert not stop.requested()
        terminate()
        assert happened.wait(10)
        assert stop.requested()
        with pytest.raises(Preempted):
            stop.check()
    ((status, message),) = found
    assert status == 1
    assert (
        "error: stopped before the state could be saved within --grace-seconds (=0.05)" in message
    )
    assert "The checkpoint before is complete; continue with --resume auto" in message


def test_nothing_to_save(exits):
    """While a network is being compiled, the main thread does not come to handle signals."""
    found, happened = exits
    with Preemption(grace_seconds=10):
        terminate()
        assert happened.wait(10)
    assert found[0] == (143, "stopped; no update was lost. Continue with --resume auto.")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_every_stop_has_its_status(number, status, exits, capsys):
    with Preemption(grace_seconds=10) as stop:
        stop.busy = True
        terminate(number)
        wait_until(stop.requested)
        with pytest.raises(Preempted) as stopped:
            stop.check()
    assert stopped.value.status == status
    assert f"{number.name}: saving, then stopping." in capsys.readouterr().err
    assert exits[0] == []


def test_a_second_interruption_ends_at_once(exits):
    found, happened = exits
    with Preemption(grace_seconds=10) as stop:
        stop.busy = True
        terminate(signal.SIGINT)
        wait_until(stop.requested)
        assert found == []
        terminate(signal.SIGINT)
        assert happened.wait(10)
    assert found == [(130, "ended at once; the checkpoint before is complete.")]


def test_usr1_saves_and_goes_on_or_stops(exits, capsys):
    with Preemption() as stop:
        terminate(signal.SIGUSR1)
        wait_until(lambda: "SIGUSR1: there is nothing to save." in capsys.readouterr().err)
        stop.busy = True
        terminate(signal.SIGUSR1)
        wait_until(lambda: stop.save_wanted)
        assert not stop.requested()
    with Preemption(on_usr1="stop") as stop:
        stop.busy = True
        terminate(signal.SIGUSR1)
        wait_until(stop.requested)
        assert stop.stop().status == 138


def test_what_was_ignored_still_is(exits):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as stop:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            terminate(signal.SIGHUP)
            terminate(signal.SIGUSR1)  # Later, and noticed.
            stop.busy = True
            time.sleep(0.2)
            assert not stop.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_usr1_in_training_saves_and_changes_nothing(tmp_path):
    class SaveOnce(Preemption):
        """Wants everything saved after 6 updates, 3 batches of an evaluation, and 2 updates."""

        calls = 0

        def requested(self):
            self.calls += 1
            if self.calls == 12:
                self.save_wanted = True
            return False

    messages = []
    jobs.train_here(tmp_path / "saved", SaveOnce(), messages, keep_checkpoints=9)
    assert messages == ["Saved, as asked (SIGUSR1); training goes on."]
    saved = checkpoint.saved_steps(run_folder(tmp_path / "saved", "ubn", 0) / "checkpoints")
    jobs.train_here(tmp_path / "plain", keep_checkpoints=9)
    plain = checkpoint.saved_steps(run_folder(tmp_path / "plain", "ubn", 0) / "checkpoints")
    assert set(saved) - set(plain) == {8}
    assert jobs.differences(tmp_path / "saved", tmp_path / "plain") == []


def test_the_time_is_up(exits):
    """It is as if SIGTERM came."""
    with Preemption(grace_seconds=10, max_seconds=0.05) as stop:
        stop.busy = True
        assert not stop.requested()
        time.sleep(0.5)
        assert stop.requested()
        assert stop.stop().status == 0
    with Preemption(max_seconds=0.5):  # It was not needed, and is not remembered.
        pass
    assert not exits[1].wait(1)


def test_done_in_time(exits):
    with Preemption(grace_seconds=0.2) as stop:
        stop.busy = True
        terminate()
    assert not exits[1].wait(0.5)


def test_outside_the_main_thread():
    def work():
        with Preemption() as stop:
            found.append(stop.requested())

    found = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGTERM) == before
