"""The run folder: new, continued, or refused with a reason."""

import hashlib
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from experiments import train
from experiments.common.errors import Preempted
from experiments.common.files import read_json, write_json
from experiments.config.experiment import TrainConfig, to_dict
from experiments.training import job
from experiments.training.run_folder import locked, open_run_dir


def test_a_run_folder_is_a_local_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, _ = open_run_dir(TrainConfig(run_dir="~/run"))
    assert folder == tmp_path / "run"
    with pytest.raises(ValueError, match=r"`run_dir` \(='gs://bucket/x'\) must be on a file syst"):
        open_run_dir(TrainConfig(run_dir="gs://bucket/x"))


def test_run_folder_is_never_overwritten(tmp_path):
    (tmp_path / "there").mkdir()
    message = r"`run_dir` \(='.*there'\) exists, .* another --run-dir, .* with --resume auto"
    with pytest.raises(ValueError, match=message):
        open_run_dir(TrainConfig(run_dir=str(tmp_path / "there")))


def test_auto_starts_what_is_not_there(tmp_path):
    folder = tmp_path / "a" / "run"
    config = TrainConfig(run_dir=str(folder), resume="auto")
    assert open_run_dir(config) == (folder, False)
    # Killed right after that, or while it wrote the first files.
    (folder / ".lock").touch()
    (folder / "data.json").touch()
    (folder / "versions.tmp.json").touch()
    assert open_run_dir(config) == (folder, False)
    write_json(folder / "config.json", to_dict(config))
    assert open_run_dir(config) == (folder, True)
    with pytest.raises(ValueError, match="results are never overwritten"):
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


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


@pytest.fixture
def begun(tmp_path):
    """A run of 12 training and 4 test images that was stopped when it had begun."""
    pytest.importorskip("cv2")
    for i in range(16):
        write_image(
            tmp_path / "pictures" / ("test" if i < 4 else "train") / "ab"[i % 2] / f"{i}.png", i
        )
    assert start(tmp_path) == 0
    return tmp_path


def start(folder: Path, name: str = "pictures") -> int:
    options = "--data.dataset imagefolder --optim.batch-size 8 --evals-per-epoch 1 --probe.every 0"
    folders = {"--data.data-dir": name, "--data.cache-dir": "cache", "--run-dir": "run"}
    arguments = [x for option, path in folders.items() for x in (option, str(folder / path))]
    with mock.patch.object(job, "_compile", side_effect=Preempted):
        return train.main([*options.split(), *arguments, "--resume", "auto"])


CHANGES = {
    "pixels": (lambda root: write_image(root / "train/a/8.png", 100), {"train_images"}),
    "labels": (
        lambda root: (root / "train/a/8.png").rename(root / "train/b/08.png"),
        {"train_labels"},  # In the order of the files it is where it was.
    ),
    "test": (lambda root: write_image(root / "test/b/1.png", 100), {"test_images"}),
    "fewer": (
        lambda root: (root / "train/a/8.png").unlink(),
        {"train_images", "train_labels"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_data(begun, capsys, change):
    """Sizes and times of files do not matter: one pixel does."""
    before = read_json(begun / "run" / "data.json")
    make, names = CHANGES[change]
    make(begun / "pictures")
    capsys.readouterr()
    assert start(begun) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the run in {begun / 'run'} was started with other data:\n")
    assert error.endswith(
        "Give the same data to resume it, or another --run-dir for a run of its own.\n"
    )
    differences = dict(line.strip().split(": ") for line in error.splitlines()[1:-1])
    sizes = {"train_size": "12 before, 11 now"} if change == "fewer" else {}
    assert {name: differences.pop(name) for name in sizes} == sizes
    assert differences.keys() == {f"{name}_sha256" for name in names}
    for name, text in differences.items():
        assert text.startswith(f"{before[name][:16]} before, ")
    assert read_json(begun / "run" / "data.json") == before


def test_the_same_data_elsewhere(begun):
    shutil.move(begun / "pictures", begun / "moved")
    shutil.rmtree(begun / "cache")
    assert start(begun, "moved") == 0


def test_a_record_without_checksums(begun, capsys):
    """Of a run that an earlier version began: what it has is compared."""
    path = begun / "run" / "data.json"
    before = {n: value for n, value in read_json(path).items() if not n.endswith("_sha256")}
    write_json(path, before)
    assert start(begun) == 0
    write_json(path, before | {"train_size": 13})
    assert start(begun) == 1
    assert "\n  train_size: 13 before, 12 now\nGive" in capsys.readouterr().err


def test_checksums_are_of_what_is_trained_on(begun):
    images = [
        np.asarray(Image.open(begun / f"pictures/train/{c}/{i}.png"))
        for c in "ab"
        for i in sorted(range(4, 16), key=str)
        if "ab"[i % 2] == c
    ]
    expected = hashlib.sha256(b"uint8 (12, 8, 8, 3)\n" + np.stack(images).tobytes()).hexdigest()
    assert read_json(begun / "run" / "data.json")["train_images_sha256"] == expected
