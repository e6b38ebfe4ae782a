"""Bad configurations are named, with the choices there are."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import methods
from experiments.config.experiment import (
    DataConfig,
    ModelConfig,
    NormConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
    from_dict,
    to_dict,
)


def test_round_through_json():
    config = TrainConfig(norms=("gn",), norm=NormConfig(unit=0.25), seeds=(4, 5), run_dir="there")
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"norms": ["bn", "foo"]},
            r"`norm` \(='foo'\) is unknown; choose from bn, ubn, gn, no",
        ),
        (
            {"data": {"dataset": "svhn"}},
            r"`dataset` \(='svhn'\) is unknown; choose from digits, mnist5k, mnist",
        ),
        (
            {"norm": {"unit": "metre"}},
            r"`unit` \(='metre'\) must be one of 'reference', 'sample', 'rms', 'position', or a",
        ),
        ({"norm": {"unit": -1.0}}, r"`unit` \(=-1.0\) must be one of .* a finite kappa > 0"),
        ({"seed": 1}, r"field \(='seed'\) is unknown; choose from norms, seeds, run_dir"),
        (
            {"optim": {"lr": 1.0}},
            r"field \(='optim.lr'\) is unknown; choose from optim.epochs, optim.batch_size",
        ),
        ({"seeds": 5}, r"field `seeds` \(=5\) is not of the type of that option; restore"),
        ({"seeds": ["a"]}, r"field `seeds` \(=\('a',\)\) is not of the type"),
        ({"optim": 3}, r"field \(='optim'\) must be a dictionary of options, but is 3"),
        ({"optim": {"epochs": "3"}}, r"field `optim.epochs` \(='3'\) is not of the type"),
        ({"resume": None}, r"field `resume` \(=None\) is not of the type"),
        ([], r"field \(='all'\) must be a dictionary of options, but is \[\]"),
    ],
)
def test_unknown_names(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(max_shift=-1), r"`max_shift` \(=-1\) must be zero or a positive"),
        (lambda: ModelConfig(blocks=(1,)), r"`blocks` \(=\(1,\)\) and `widths` .* same number"),
        (lambda: ModelConfig(blocks=(0, 1, 1)), r"`blocks` \(=0\) must be a positive number"),
        (
            lambda: TrainConfig(norms=("bn", "kalman+ws"), norm=NormConfig(slice_size=3)),
            r"`slice_size` \(=3\) must divide `batch_size` \(=64\) with kalman\+ws; change --nor",
        ),
        (lambda: NormConfig(slice_size=0), r"`slice_size` \(=0\) must be a positive number"),
        (lambda: NormConfig(gain=-1.0), r"`gain` \(=-1.0\) must be in \[0, 1\]"),
        (lambda: NormConfig(momentum=1.0), r"`momentum` \(=1.0\) must be in \[0, 1\)"),
        (lambda: NormConfig(epsilon=0.0), r"`epsilon` \(=0.0\) must be a positive number"),
        (lambda: NormConfig(alpha_init=float("inf")), r"`alpha_init` \(=inf\) must be a finite"),
        (lambda: ProbeConfig(every=-1), r"`every` \(=-1\) must be zero or a positive number"),
        (lambda: ProbeConfig(images=0), r"`images` \(=0\) must be a positive number"),
        (lambda: ProbeConfig(mode="test"), r"`mode` \(='test'\) is unknown; choose from train, ev"),
        (lambda: ProbeConfig(lag=0), r"`lag` \(=0\) must be from 1 to `every` \(=10\): 1 meas"),
        (lambda: ProbeConfig(lag=11), r"`lag` \(=11\) must be from 1 to `every` \(=10\)"),
        (lambda: OptimConfig(epochs=0), r"`epochs` \(=0\) must be a positive number"),
        (lambda: OptimConfig(learning_rate=float("nan")), r"`learning_rate` \(=nan\) must be"),
        (lambda: OptimConfig(momentum=-0.1), r"`momentum` \(=-0.1\) must be in \[0, 1\)"),
        (lambda: OptimConfig(warmup=1.0), r"`warmup` \(=1.0\) must be in \[0, 1\)"),
        (lambda: OptimConfig(weight_penalty=-1), r"`weight_penalty` \(=-1\) must be zero or"),
        (lambda: TrainConfig(seeds=()), r"`seeds` \(=\(\)\) must be one or more different"),
        (lambda: TrainConfig(seeds=(-1,)), r"`seeds` \(=-1\) must be from 0 to 2\^32 - 1"),
        (lambda: TrainConfig(seeds=(0, 2**32)), r"`seeds` \(=4294967296\) must be from 0 to"),
        (lambda: TrainConfig(seeds=(2**63,)), r"`seeds` \(=9223372036854775808\) must be from"),
        (lambda: DataConfig(cache_gigabytes=0), r"`cache_gigabytes` \(=0\) must be a positive"),
        (lambda: TrainConfig(norms=("bn", "bn")), r"`norms` .* must be one or more different"),
        (lambda: TrainConfig(target_accuracy=97.0), r"`target_accuracy` \(=97.0\) must be in"),
        (lambda: TrainConfig(evals_per_epoch=0), r"`evals_per_epoch` \(=0\) must be a positive"),
    ],
)
def test_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_options_reach_the_layers():
    ubn = methods.make_norm("ubn", momentum=0.5, epsilon=0.25, unit="rms", axis_name="i")()
    assert (ubn.momentum, ubn.epsilon, ubn.unit, ubn.axis_name) == (0.5, 0.25, "rms", "i")
    for alpha in (0.0, 0.75):
        layer = methods.make_norm("ubn", alpha_init=alpha)(use_running_average=True)
        variables = layer.init(jax.random.key(0), jnp.zeros((2, 3)))
        np.testing.assert_array_equal(variables["params"]["alpha"], np.full(3, alpha, np.float32))
    bn = methods.make_norm("bn", momentum=0.5, epsilon=0.25, axis_name="i")()
    assert isinstance(bn, nn.BatchNorm)
    assert (bn.momentum, bn.epsilon, bn.axis_name) == (0.5, 0.25, "i")


@pytest.mark.parametrize("norm", ["gn", "none"])
def test_norms_without_statistics(norm):
    layer = methods.make_norm(norm)(use_running_average=False)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 16)) * 3 + 1
    variables = layer.init(jax.random.key(0), x)
    assert "batch_stats" not in variables
    y = layer.apply(variables, x)
    if norm == "none":
        np.testing.assert_array_equal(y, x)
    else:
        groups = y.reshape(2, 16, 2, 8)  # (sample, position, group, channel of the group)
        np.testing.assert_allclose(jnp.std(groups, axis=(1, 3)), 1, rtol=1e-4)
