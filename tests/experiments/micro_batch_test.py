"""The command: what it trains, and that bad flags are named."""

import pytest

from experiments import micro_batch
from experiments.micro_batch import MicroBatchConfig, train_config


def test_command_trains_what_its_flags_say(monkeypatch):
    """Training itself is that of experiments.train, with methods that the zoo's tests train."""
    seen = []
    monkeypatch.setattr(micro_batch, "train", lambda config, console: seen.append(config))
    flags = "--seeds 7 --norms bn-slices kalman --slice-size 4 --gain 0.2 --optim.epochs 3"
    assert micro_batch.main([*flags.split(), "--run-dir", "there"]) == 0
    (config,) = seen
    assert (config.seeds, config.norms, config.run_dir) == ((7,), ("bn-slices", "kalman"), "there")
    assert (config.norm.slice_size, config.norm.gain, config.optim.epochs) == (4, 0.2, 3)
    assert config.optim.batch_size == 64


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
