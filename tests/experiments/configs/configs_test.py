"""Experiments by name: what they are made of, and how a command line finds them."""

import dataclasses
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments import methods, train
from experiments.analysis.compare.command import train_command
from experiments.config.experiment import TrainConfig
from experiments.configs import choose, load, names
from experiments.configs.__main__ import main
from experiments.models import PreActResNet
from experiments.training.program import make_model
from tests.experiments.models.authors import paper_norms

# Of the authors' networks on CIFAR-10, running statistics included: unitized, batch-normalized.
PARAMETERS = {
    "18": (275_210, 274_506),
    "110": (1_746_890, 1_742_826),
    "164": (1_752_234, 1_740_106),
}


@pytest.mark.parametrize("name", names())
def test_card_and_command(name):
    config, card = load(name)
    assert card.splitlines()[0].endswith(".") or card.splitlines()[0].endswith("schedule.")
    assert f"python -m experiments train {name}\n" in card
    assert re.search(r"^Expected: ", card, re.MULTILINE)
    assert re.search(r"^Time: ", card, re.MULTILINE)
    assert len(config.seeds) == 5


@pytest.mark.parametrize("name", ["cifar100_resnet164_short", "imagenet_resnet50", "digits_slices"])
def test_command_repeats_the_configuration(name):
    config, _ = load(name)
    words = shlex.split(train_command(config))[4:]
    found = tyro.cli(TrainConfig, args=words)
    # How often to save changes no number, and is no part of the command.
    assert dataclasses.replace(found, checkpoint_every=config.checkpoint_every) == config


def test_slices_are_the_papers_setting():
    config, _ = load("digits_slices")
    assert (config.norm.slice_size, config.norm.gain) == (2, 0.1)
    assert {"bn-slices", "gn", "kalman", "kalman-published"} < set(config.norms)
    changed = choose(["digits_slices", "--norm.slice-size", "4"])
    found = tyro.cli(TrainConfig, default=changed.config, args=changed.arguments)
    assert found == dataclasses.replace(config, norm=dataclasses.replace(config.norm, slice_size=4))


@pytest.mark.parametrize(
    "depth", [*list(PARAMETERS)[:-1], pytest.param(list(PARAMETERS)[-1], marks=pytest.mark.slow)]
)
def test_networks_are_the_authors(depth):
    config, _ = load(f"cifar10_resnet{depth}")
    assert config.optim.batch_size == (64 if depth == "164" else 128)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for norm, expected in zip(("ubn", "bn"), PARAMETERS[depth], strict=True):
        model = make_model(config, norm, 10, methods.Context())
        init = lambda key, x, model=model: model.init(key, x, train=False)  # noqa: E731
        shapes = jax.eval_shape(init, jax.random.key(0), images)
        assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) == expected


def test_the_norm_is_the_authors():
    """``paper_norms`` is what the golden vectors of their layer and network are checked with."""
    config, _ = load("cifar10_resnet18")
    fields = {"blocks": (1, 1), "widths": (4, 8)}
    ours = PreActResNet(norm=methods.make_method("ubn", config.norm).norm, **fields)
    theirs = PreActResNet(norm=paper_norms(image_size=32, stages=2), **fields)
    x = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    variables = jax.jit(lambda x: ours.init(jax.random.key(1), x, train=False))(x)
    variables["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 0.5 if path[-1].key == "alpha" else leaf, variables["params"]
    )

    def apply(model):
        run = lambda v: model.apply(v, x, train=True, mutable=["batch_stats"])  # noqa: E731
        return jax.jit(run)(variables)

    for a, b in zip(*(jax.tree.leaves(apply(m)) for m in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_short_ones_are_short_and_else_the_same():
    long, _ = load("cifar10_resnet18")
    short, card = load("cifar10_resnet18_short")
    assert "NOT the authors' schedule" in card
    assert (short.model, short.data, short.seeds) == (long.model, long.data, long.seeds)
    assert 10 <= short.optim.epochs <= 20
    assert short.optim.weight_penalty == long.optim.weight_penalty


def test_command_line(capsys):
    assert choose(["cifar10_resnet18", "--norms", "gn"]).config == load("cifar10_resnet18")[0]
    assert choose(["--norms", "gn"]).config == TrainConfig()
    assert train.main(["cifar10_resnet19"]) == 2
    error = capsys.readouterr().err
    assert "error: `experiment` (='cifar10_resnet19') is unknown; choose from cifar10" in error
    with pytest.raises(SystemExit, match="0"):
        train.main(["cifar10_resnet18", "--help-all"])
    shown = capsys.readouterr().out
    assert "as the authors train it" in shown
    assert "python -m experiments train cifar10_resnet18" in shown
    assert "(default: 61 121 161)" in shown


def test_list_and_card(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in names())
    assert main(["cifar10_resnet164"]) == 0
    shown = capsys.readouterr().out
    assert "--optim.boundaries 61 121 161" in shown
    assert main(["nothing"]) == 1
    assert "`experiment` (='nothing') is unknown" in capsys.readouterr().err
