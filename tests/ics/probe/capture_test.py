import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics
from unitnorm_jax.linen import UnitizedBatchNorm

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def capture(model, layers=None, *args, variables=None, **options):
    args = args or (X,)
    if variables is None:
        variables = model.init(jax.random.key(0), *args, **options.get("kwargs", {}))
    wanted = ics.layer_filter(layers)
    kwargs = options.pop("kwargs", {})
    return ics.layer_outputs(model, variables, args, kwargs, wanted=wanted, **options)


class Net(nn.Module):
    """Two normalizations: with running statistics and without."""

    @nn.compact
    def __call__(self, x, train):
        x = UnitizedBatchNorm(use_running_average=not train, name="norm")(nn.Dense(4)(x))
        return nn.LayerNorm()(nn.Dense(3)(nn.relu(x)))


@pytest.mark.parametrize(("mode", "statistics"), [("train", "batch"), ("eval", "running")])
def test_outputs_are_those_of_the_model(mode, statistics):
    kwargs = {"train": mode == "train"}
    variables = Net().init(jax.random.key(0), X, **kwargs)
    got = capture(Net(), variables=variables, kwargs=kwargs, mode=mode)
    assert [(y.layer, y.kind, y.call, y.output) for y in got] == [
        ("norm", "UnitizedBatchNorm", 0, ""),
        ("LayerNorm_0", "LayerNorm", 0, ""),
    ]
    assert [y.statistics for y in got] == [statistics, "none"]
    result, state = Net().apply(
        variables, X, **kwargs, capture_intermediates=True, mutable=["intermediates", "batch_stats"]
    )
    np.testing.assert_array_equal(got[0].value, state["intermediates"]["norm"]["__call__"][0])
    np.testing.assert_array_equal(got[1].value, result)


def test_training_mode_states_what_the_layers_did():
    got = capture(Net(), kwargs={"train": False}, mode="train")
    assert got[0].statistics == "running"


def test_eval_mode_may_not_write():
    with pytest.raises(ValueError, match='In mode "eval" the model must not write'):
        capture(Net(), kwargs={"train": True}, mode="eval")


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.LayerNorm(name="shared")
        return norm(2 * nn.RMSNorm()(norm(x)) + x)


def test_one_entry_per_call():
    got = capture(Shared())
    assert [(y.layer, y.call) for y in got] == [("shared", 0), ("shared", 1), ("RMSNorm_0", 0)]
    assert not np.array_equal(got[0].value, got[1].value)


class Child(nn.LayerNorm):
    @nn.compact
    def __call__(self, x):
        return 2 * super().__call__(x)


def test_a_super_call_is_no_call():
    (got,) = capture(Child())
    assert got.kind == "Child"
    np.testing.assert_allclose(np.mean(np.square(got.value)), 4, rtol=1e-3)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return {"b": nn.LayerNorm()(x), "a": (2 * x, None)}


def test_one_entry_per_array_of_the_output():
    got = capture(Pair(), Pair)
    assert [(y.layer, y.output) for y in got] == [("", "['a'][0]"), ("", "['b']")]
    np.testing.assert_array_equal(got[0].value, 2 * X)


def test_a_probe_may_look_at_one_of_several_arrays():
    model = Pair()
    variables = model.init(jax.random.key(0), X)
    (layer,) = ics.ICSProbe(model, X, Pair, outputs=("", "['b']"))(variables, variables).layers
    assert layer.output == "['b']"
    probe = ics.ICSProbe(model, X, Pair, outputs=("",))
    with pytest.raises(
        ValueError, match=r"`outputs` \(=\('',\)\) selects no array: the layers return"
    ):
        probe(variables, variables)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(nn.Dense(4)(x)) + x


class Rematerialized(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(nn.LayerNorm)(name="norm")(nn.remat(Block)(name="block")(x))


def test_inside_remat_and_jit():
    assert [y.layer for y in capture(Rematerialized())] == ["block/norm", "norm"]
    assert [y.layer for y in capture(nn.jit(Block)())] == ["norm"]
    plain, lifted = capture(Block()), capture(nn.remat(Block)())
    np.testing.assert_allclose(plain[0].value, lifted[0].value, rtol=1e-5)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block(name="block")(x), None


class Scanned(nn.Module):
    axes: dict

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(Layer, variable_axes=self.axes, split_rngs={"params": True}, length=3)
        return layers(name="layers")(x, None)[0]


def test_scanned_layers():
    for axes in ({"params": 0, "intermediates": 1}, {"params": 0}):
        (got,) = capture(Scanned(axes))
        assert (got.layer, got.stacked) == ("layers/block/norm", 1)
        assert got.value.shape == ((6, 3, 4) if len(axes) > 1 else (3, 6, 4))
        assert got.axes == (1 if len(axes) > 1 else 0,)


class Stemmed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Scanned({"params": 0}, name="body")(nn.LayerNorm(name="stem_norm")(x))


def test_axes_are_those_of_the_layer_in_any_order_of_names():
    got = [(y.layer, y.axes) for y in capture(Stemmed())]
    assert got == [("stem_norm", ()), ("body/layers/block/norm", (0,))]


def test_layers_that_stay_inside():
    shared = nn.vmap(Block, variable_axes={"params": None}, split_rngs={"params": False})()
    with pytest.raises(ValueError, match="layer 'norm' stays inside a lifted transform"):
        capture(shared)


class Sower(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(x)
        self.sow("intermediates", "x", x)
        return x


def test_the_models_own_intermediates_do_not_mix():
    variables = Sower().init(jax.random.key(0), X)
    variables = {**variables, "intermediates": {"x": (X,), "norm": {"ics:__call__": (X,)}}}
    assert [y.layer for y in capture(Sower(), variables=variables)] == ["norm"]


def test_nothing_selected_lists_the_layers():
    with pytest.raises(ValueError, match=r"selects no layer of the model, which called.*Dense_0"):
        capture(Block(), "nothing")
    many = nn.Sequential([nn.Dense(4) for _ in range(30)])
    with pytest.raises(ValueError, match=r"and 11 more; select among these"):
        capture(many)


def test_method_and_rngs():
    class Dropped(nn.Module):
        @nn.compact
        def features(self, x):
            return nn.Dropout(0.5, deterministic=False)(nn.LayerNorm()(x))

    variables = Dropped().init(jax.random.key(0), X, method="features")
    rngs = {"dropout": jax.random.key(3)}
    (got,) = capture(Dropped(), nn.Dropout, variables=variables, method="features", rngs=rngs)
    np.testing.assert_array_equal(
        got.value, Dropped().apply(variables, X, method="features", rngs=rngs)
    )
