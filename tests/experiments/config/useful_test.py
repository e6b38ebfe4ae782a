"""Options that do nothing are refused, with the rule, the value and the way out."""

import dataclasses

import pytest

from experiments import train
from experiments.analysis.names import used_options
from experiments.config.experiment import DataConfig, NormConfig, TrainConfig
from experiments.config.methods import CONVS, NORMS, USED_BY
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
        (
            "--norms bn --norm.unit rms",
            "`unit` (='rms') is of ubn alone, and `norms` are bn; add ubn",
        ),
        (
            "--norms bn --norm.enorm-c 1.2",
            "`enorm_c` (=1.2) is of +enorm alone, and `norms` are bn",
        ),
        ("--norm.alpha-ramp 0.2", "`alpha_ramp` (=0.2) is of --norm.alpha ramp alone, and `alpha`"),
        ("--data.data-dir x", "`data_dir` (='x') does nothing with digits, which is in a package"),
        (
            "--data.dataset imagefolder --data.data-dir gs://b/x",
            "`data_dir` (='gs://b/x') must be on a file system of this machine. Mount it and give",
        ),
        (
            "--data.dataset mnist --data.data-dir s3://b/x",
            "`data_dir` (='s3://b/x') must be on a file system of this machine. Mount it and give",
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
    error = capsys.readouterr().err
    assert error.startswith(f"error: `{name}` (=-1.0) must be a positive number.")
    assert error.count("\n") == 1


@pytest.mark.parametrize("dataset", ["digits", "mnist5k"])
def test_sides_are_those_of_the_images(dataset):
    assert load_dataset(dataset).example(1)["image"].shape[1] == SIDES[dataset]


def test_options_are_of_the_methods_that_look_at_them():
    norms = [*NORMS, *(f"bn+{conv}" for conv in CONVS)]
    used = {norm: used_options(norm, NormConfig(alpha="floor", alpha_init=1.0)) for norm in norms}
    used["ubn"] |= used_options("ubn", NormConfig(alpha="ramp"))
    for option, users in USED_BY.items():
        looking = {norm for norm in norms if f"norm.{option}" in used[norm]}
        assert looking == {f"bn+{user}" if user in CONVS else user for user in users}, option


def test_an_experiment_may_have_options_of_other_methods(tmp_path):
    start = TrainConfig(norm=NormConfig(unit="rms"))
    config = dataclasses.replace(start, norms=("bn",), run_dir=str(tmp_path), resume="auto")
    check_useful(config, start)
    with pytest.raises(ValueError, match="unit"):
        check_useful(config)
    (tmp_path / "config.json").touch()
    check_useful(config)


def test_data_sets_that_are_prepared_may_be_on_cloud_storage():
    check_useful(TrainConfig(data=DataConfig("imagenet2012", "gs://b/x")))


def test_the_defaults_are_useful():
    check_useful(TrainConfig())
