"""The command: what it trains, and that bad flags are named."""

import json

import pytest

from experiments import micro_batch
from experiments.micro_batch import MicroBatchConfig, train_config

SMALL = "--seeds 0 --norms kalman-published --model.blocks 1 --model.widths 4"


def test_command_trains_and_never_overwrites(tmp_path, capsys):
    folder = tmp_path / "run"
    flags = f"{SMALL} --optim.epochs 1 --optim.batch-size 128 --slice-size 4 --run-dir {folder}"
    assert micro_batch.main(flags.split()) == 0
    output = capsys.readouterr().out
    assert "test accuracy, %" in output
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((folder / "config.json").read_text())
    assert config["norm"]["slice_size"] == 4
    results = json.loads((folder / "summary.json").read_text())["results"]
    assert [r["norm"] for r in results] == ["kalman-published"]
    assert micro_batch.main(flags.split()) == 1
    assert "a run never overwrites another" in capsys.readouterr().err


def test_defaults_are_the_papers_setting():
    config = train_config(MicroBatchConfig())
    assert (config.norm.slice_size, config.norm.gain) == (2, 0.1)
    assert {"bn-slices", "gn", "kalman", "kalman-published"} < set(config.norms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"slice_size": 3},
            r"`slice_size` \(=3\) must be positive and divide the batch size \(=64\)",
        ),
        ({"slice_size": 0}, r"`slice_size` \(=0\) must be positive"),
        ({"gain": -1.0}, r"`gain` \(=-1.0\) must be in \[0, 1\]"),
        ({"norms": ("bm",)}, r"norm \(='bm'\) is unknown"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MicroBatchConfig(**options)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as status:
        micro_batch.main(["--help"])
    assert status.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "--slice-size" in output
    assert "Images per slice; must divide the batch size." in output
