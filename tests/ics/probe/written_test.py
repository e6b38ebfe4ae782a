"""Which statistics a layer used is seen inside lifted transforms too."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


class Block(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=not self.train, name="norm")(nn.Dense(4)(x))


class Decorated(nn.Module):
    train: bool

    @nn.remat
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=not self.train, name="norm")(x)


class Wrapped(nn.Module):
    wrap: object
    train: bool

    @nn.compact
    def __call__(self, x):
        return self.wrap(Block)(self.train, name="block")(x)


class Step(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, _):
        return Block(self.train, name="block")(x), None


class Scanned(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0, "intermediates": 0}
        steps = nn.scan(Step, variable_axes=axes, split_rngs={"params": True}, length=3)
        return steps(self.train)(x, None)[0]


class InBranches(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        block = Block(self.train)
        return nn.cond(x.sum() > 0, lambda m, x: m(x), lambda m, x: -m(x), block, x)


double, halve = (partial(jax.tree.map, lambda p, f=f: f * p) for f in (2, 0.5))
mapped = partial(nn.map_variables, mapped_collections="batch_stats", mutable=True)
MODELS = {
    "plain": Block,
    "remat": partial(Wrapped, nn.remat),
    "jit": partial(Wrapped, nn.jit),
    "map_variables": partial(
        Wrapped, partial(mapped, trans_in_fn=double, trans_out_fn=halve, init=False)
    ),
    "remat of remat": partial(Wrapped, lambda block: nn.remat(nn.remat(block))),
    "remat of the norm": lambda train: nn.Sequential(
        [nn.Dense(4), nn.remat(nn.BatchNorm)(use_running_average=not train)]
    ),
    "decorator": Decorated,
    "scan": Scanned,
    "cond": InBranches,
}


def statistics(model, variables, mode, wanted=nn.BatchNorm):
    # Abstractly: nothing is compiled.
    found = []
    jax.eval_shape(
        lambda v: found.extend(
            ics.layer_outputs(model, v, (X,), {}, wanted=ics.layer_filter(wanted), mode=mode)
        ),
        variables,
    )
    return [output.statistics for output in found]


@pytest.mark.parametrize("name", MODELS)
def test_statistics(name):
    model = MODELS[name]
    variables = model(False).init(jax.random.key(0), X)
    assert statistics(model(True), variables, "train") == ["batch"]
    assert statistics(model(False), variables, "train") == ["running"]
    assert statistics(model(False), variables, "eval") == ["running"]
    # Flax makes the missing statistics, and writes them or not.
    params = {"params": variables["params"]} if "params" in variables else {}
    if name != "map_variables":  # whose transform needs them
        assert statistics(model(True), params, "train") == ["batch"]
        assert statistics(model(False), params, "train") == ["running"]


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(name="norm")
        x = norm(x, use_running_average=False)
        return norm(x, use_running_average=True)


def test_each_call_for_itself():
    variables = Twice().init(jax.random.key(0), X)
    assert statistics(Twice(), variables, "train") == ["batch", "running"]


def test_a_program_of_before_does_not_hide_layers():
    """Flax's jit keeps programs, in which nothing was taken out."""

    class Jitted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return JITTED(True, name="block")(x)

    variables = Jitted().init(jax.random.key(0), X)
    jax.eval_shape(
        lambda v: Jitted().apply(v, X, mutable=["batch_stats", "intermediates"]), variables
    )
    for _ in range(2):
        assert statistics(Jitted(), variables, "train", (nn.BatchNorm, nn.Dense)) == [
            "none",
            "batch",
        ]


JITTED = nn.jit(Block)


def test_remat_and_jit_give_the_same_rows():
    variables = Wrapped(nn.remat, False).init(jax.random.key(0), X)
    after = jax.tree.map(lambda p: 1.1 * p + 0.05, variables)
    plain = Wrapped(lambda block: block, True)
    expected = Quick(plain, X, mode="train")(variables, after).rows()
    assert expected[0]["value"] > 0.01
    for wrap in (nn.remat, nn.jit, lambda _: JITTED):
        found = Quick(Wrapped(wrap, True), X, mode="train")(variables, after).rows()
        for one, other in zip(found, expected, strict=True):
            texts = [
                {k: v for k, v in row.items() if isinstance(v, str | int)} for row in (one, other)
            ]
            assert texts[0] == texts[1]
            assert one["value"] == pytest.approx(other["value"], rel=1e-5)
