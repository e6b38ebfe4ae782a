"""The run folder: new, continued, or refused with a reason."""

from pathlib import Path

import pytest

from experiments.config import TrainConfig, to_dict
from experiments.record import write_json
from experiments.run_dir import locked, new_run_dir, open_run_dir


def test_run_folder_is_never_overwritten(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    message = r"run folder \(='.*there'\) exists, .* another --run-dir, .* with --resume auto"
    with pytest.raises(ValueError, match=message):
        new_run_dir(str(tmp_path / "there"), "digits")
    monkeypatch.chdir(tmp_path)
    folders = {new_run_dir(None, "digits") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.parent == Path("runs") and folder.is_dir() for folder in folders)


def test_auto_starts_what_is_not_there(tmp_path):
    folder = tmp_path / "a" / "run"
    config = TrainConfig(run_dir=str(folder), resume="auto")
    assert open_run_dir(config) == (folder, False)
    # Killed right after that, or while it wrote the first file.
    (folder / ".lock").touch()
    (folder / "versions.tmp.json").touch()
    assert open_run_dir(config) == (folder, False)
    write_json(folder / "config.json", to_dict(config))
    assert open_run_dir(config) == (folder, True)
    with pytest.raises(ValueError, match="never overwrites another"):
        open_run_dir(TrainConfig(run_dir=str(folder)))


@pytest.mark.parametrize("exists", [False, True])
def test_must_does_not_start_anything(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(ValueError, match=r"there is no run in .* to resume; give the --run-dir"):
        open_run_dir(TrainConfig(run_dir=str(folder), resume="must"))
    assert folder.exists() == exists


def test_not_a_run_folder(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"it has other files, but no config.json\. Give another"):
        open_run_dir(TrainConfig(run_dir=str(tmp_path), resume="auto"))


def test_another_configuration(tmp_path):
    write_json(tmp_path / "config.json", to_dict(TrainConfig(seeds=(1, 2))))
    with pytest.raises(ValueError, match=r"\n  seeds: \(1, 2\) before, \(3,\) now\nGive the same"):
        open_run_dir(TrainConfig(run_dir=str(tmp_path), resume="auto", seeds=(3,)))


def test_one_process_at_a_time(tmp_path):
    message = r"another process is training in .*; wait for it"
    with locked(tmp_path), pytest.raises(ValueError, match=message), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
