"""SIGTERM: training finishes its update, saves, and ends with status 0; and what if it cannot."""

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

    monkeypatch.setattr(preemption, "_exit", exit)
    return found, happened


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_ends_with_status_0(tmp_path, monkeypatch, capsys, exits):
    run_dir = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    write = Recorder.write

    def write_and_terminate(self, kind, rows):
        write(self, kind, rows)
        if kind == "eval":
            terminate()
            time.sleep(0.3)  # For the thread that notices; the updates here are faster.

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "write", write_and_terminate)
        assert train.main([*ARGUMENTS, "--run-dir", str(run_dir), "--resume", "auto"]) == 0
    output = capsys.readouterr().out
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
    assert found[0] == (0, "stopped; no update was lost. Continue with --resume auto.")


def test_the_time_is_up(exits):
    """It is as if SIGTERM came."""
    with Preemption(grace_seconds=10, max_seconds=0.05) as stop:
        stop.busy = True
        assert not stop.requested()
        time.sleep(0.5)
        assert stop.requested()
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
