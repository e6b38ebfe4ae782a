"""Options that do nothing are refused, with the rule, the value and the way out."""

import pytest

from experiments import train
from experiments.config.experiment import TrainConfig
from experiments.config.useful import SIDES, check_useful
from experiments.data import load_dataset

PIECEWISE = "--optim.schedule piecewise --optim.epochs 5 --optim.boundaries"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--data.image-size 16",
            "`image_size` (=16) does nothing with digits, whose images have 8",
        ),
        (
            "--data.max-shift 8",
            "`max_shift` (=8) must be less than the side of the images, 8 pixels",
        ),
        (f"{PIECEWISE} 2 5", "`boundaries` (=(2, 5)) must be before the end: `epochs` (=5)"),
        (
            "--norms bn gn --norm.bound-penalty 0.5",
            "`bound_penalty` (=0.5) is of ubn alone, and `norms` are bn, gn; add ubn",
        ),
        ("--probe.images 1", "`probe.images` (=1) must be at least 2: one image is no sample"),
    ],
)
def test_refused_before_anything_is_loaded(words, message, capsys, tmp_path):
    run_dir = tmp_path / "run"
    assert train.main([*words.split(), "--run-dir", str(run_dir)]) == 2
    output, error = capsys.readouterr()
    assert error.startswith("error: ")
    assert message in error
    assert output == ""
    assert not run_dir.exists()


@pytest.mark.parametrize(
    "option", ["--grace-seconds", "--max-seconds", "--log-seconds", "--initialization-timeout"]
)
def test_no_time_is_negative(option, capsys):
    try:
        status = train.main([option, "-1"])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    name = option.removeprefix("--").replace("-", "_")
    assert capsys.readouterr().err == f"error: `{name}` (=-1.0) must be a positive number.\n"


@pytest.mark.parametrize("dataset", ["digits", "mnist5k"])
def test_sides_are_those_of_the_images(dataset):
    assert load_dataset(dataset).example(1)["image"].shape[1] == SIDES[dataset]


def test_the_defaults_are_useful():
    check_useful(TrainConfig())
