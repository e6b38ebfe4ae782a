"""The table of methods: what each name builds, what the options reach, and that it trains."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods
from experiments.config.experiment import ModelConfig, TrainConfig
from experiments.data import load_dataset
from experiments.methods import Context, NormConfig, make_method, make_norm
from experiments.models.preact_resnet import Block
from experiments.training import steps
from experiments.training.program import make_model
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm
from unitnorm_jax.contrib.norm_prop import NormPropConv, NormPropDense
from unitnorm_jax.contrib.weight_standardization import WeightStandardizedConv

IMAGES = jax.random.normal(jax.random.key(7), (4, 8, 8, 1))
SCHEDULE = optax.constant_schedule(0.1)
SMALL = TrainConfig(model=ModelConfig(blocks=(1, 1), widths=(8, 8)))
# What is new here: Flax's own layers behind the same names need no training to be believed.
TRAINED = ["bcn-micro", "normprop", "none+wn"]


def network(name):
    return make_model(SMALL, name, 10, Context(schedule=SCHEDULE))


def modules(model):
    """Every module of a network that is called, by path."""
    found = {}

    def note(next_fun, args, kwargs, context):
        found.setdefault("/".join(context.module.path), context.module)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), IMAGES)
    return found


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("bn", nn.BatchNorm, {}),
        ("gn", nn.GroupNorm, {"num_groups": None, "group_size": 8}),
        ("ln", nn.LayerNorm, {"reduction_axes": (1, 2, 3), "feature_axes": -1}),
        ("in", nn.InstanceNorm, {}),
        ("rms", nn.RMSNorm, {"reduction_axes": (1, 2, 3), "feature_axes": -1}),
        ("none", methods.NoNorm, {}),
        ("bcn", BatchChannelNorm, {"num_groups": 4, "rate": None, "momentum": 0.9}),
        ("bcn-micro", BatchChannelNorm, {"num_groups": 4, "rate": SCHEDULE}),
        ("normprop", methods.NoNorm, {}),
    ],
)
def test_norm_layers(name, kind, fields):
    model = network(name)
    found = modules(model)
    layers = [found["/".join(path)] for path in model.norm_paths()]
    assert {type(layer) for layer in layers} == {kind}
    for layer in layers:
        assert {key: getattr(layer, key) for key in fields} == fields
        assert getattr(layer, "epsilon", 1e-5) == 1e-5
    convs = {type(found[path]) for path in found if "conv" in path.split("/")[-1]}
    assert convs == {NormPropConv if name == "normprop" else nn.Conv}


def test_weight_layers():
    found = modules(network("gn+ws"))
    kinds = {path: type(found[path]) for path in ("stem_conv", "block_1/conv_1", "head")}
    assert list(kinds.values()) == [WeightStandardizedConv, WeightStandardizedConv, nn.Dense]
    found = modules(network("bn+wn"))
    kinds = {path: type(found[path]) for path in ("stem_conv", "block_1/conv_1", "head")}
    assert list(kinds.values()) == [NormPropConv, NormPropConv, NormPropDense]


@pytest.mark.slow
def test_wn_is_the_weight_normalization_of_flax():
    """At the scales it starts with; sqrt(2) is what keeps the network as it would start without."""
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    method = make_method("none+wn")
    for layer, plain in (
        (method.conv(64, (3, 3), strides=(2, 2)), nn.Conv(64, (3, 3), strides=(2, 2))),
        (method.dense(10), nn.Dense(10)),
    ):
        variables = layer.init(jax.random.key(1), x)
        params = variables["params"] | {"bias": jnp.arange(layer.features) / 7}
        theirs = nn.WeightNorm(plain, scale_init=nn.initializers.constant(2**0.5))
        template = theirs.init(jax.random.key(2), x)["params"]
        (wrapped,) = (name for name in template if isinstance(template[name], dict))
        assert "kernel" in template[wrapped]
        expected = theirs.apply(
            {"params": template | {wrapped: {name: params[name] for name in ("kernel", "bias")}}}, x
        )
        assert_close(layer.apply({"params": params}, x), expected, 1e-6)
    kernel = method.conv(256, (3, 3)).init(jax.random.key(3), jnp.ones((1, 8, 8, 64)))["params"]
    norms_squared = jnp.square(kernel["kernel"]).sum((0, 1, 2))
    assert float(norms_squared.mean()) == pytest.approx(2, rel=0.02)


def weights(name):
    init = jax.jit(partial(network(name).init, train=False))
    params = init(jax.random.key(3), IMAGES)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if path[-1].key == "kernel"}


@pytest.fixture(scope="module")
def plain_weights():
    return weights("bn")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normprop", "ic-conv-relu", "kalman", "gn+ws", "bn+wn"])
def test_initial_weights_are_the_same(name, plain_weights):
    ours = weights(name)
    assert ours.keys() == plain_weights.keys()
    for path, leaf in plain_weights.items():
        np.testing.assert_array_equal(ours[path], leaf)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_trains(name):
    tx = optax.sgd(0.05, momentum=0.9, nesterov=True)
    init = jax.jit(partial(steps.create_state, model=network(name), tx=tx))
    state = init(jax.random.key(0), IMAGES)
    once = chex.assert_max_traces(steps.train_step, n=1)
    step = jax.jit(partial(once, weight_penalty=1e-4))
    batch = {"image": IMAGES, "label": jnp.arange(4)}
    start, losses = state, []
    for _ in range(12):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0], losses
    # Every parameter and every statistic takes part, but a bias that the next layer takes away.
    moved = jax.tree_util.tree_leaves_with_path(
        jax.tree.map(
            lambda a, b: bool(jnp.any(a != b)),
            (start.params, start.batch_stats),
            (state.params, state.batch_stats),
        )
    )
    still = [jax.tree_util.keystr(path) for path, value in moved if not value]
    assert all("bias" in path for path in still), still


def digits_accuracy(name, updates, learning_rate):
    """Test accuracy after training on single images of digits."""
    dataset = load_dataset("digits")
    images, labels = dataset.standardize(dataset.train_images), jnp.asarray(dataset.train_labels)
    init = partial(steps.create_state, model=network(name), tx=optax.sgd(learning_rate))
    order = jnp.asarray(np.random.default_rng(0).permutation(len(images))[:updates])

    @jax.jit
    def train(state):
        def step(state, i):
            return steps.train_step(state, {"image": images[i][None], "label": labels[i][None]})

        return jax.lax.scan(step, state, order)[0]

    state = train(jax.jit(init)(jax.random.key(0), images[:1]))
    step = jax.jit(partial(steps.eval_step, standardize=dataset.standardize))
    return steps.evaluate(step, state, dataset.test_batches(360))["accuracy"]


@pytest.mark.slow
def test_normprop_trains_at_batch_size_one():
    """One pass over single images of digits; batch normalization learns next to nothing."""
    accuracies = {name: digits_accuracy(name, 1400, 0.02) for name in ("normprop", "bn")}
    assert accuracies["normprop"] > 0.6, accuracies
    assert accuracies["bn"] < 0.4, accuracies


@pytest.mark.slow
def test_normprop_is_the_same_function_in_training_and_inference():
    model = network("normprop")
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    assert variables.keys() == {"params"}
    train, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert not updated
    alone = jnp.concatenate([model.apply(variables, x[None], train=False) for x in IMAGES])
    assert_close(train, alone, 1e-5)


class Blocks(nn.Module):
    """Residual blocks of one shape, as a method makes them."""

    method: methods.Method
    count: int = 5

    @nn.compact
    def __call__(self, x):
        fields = self.method.network.keywords if self.method.network else {}
        for i in range(self.count):
            x = Block(
                filters=(32, 32),
                kernel_sizes=(3, 3),
                strides=1,
                norm=self.method.norm,
                conv=self.method.conv,
                **fields,
                name=f"block_{i}",
            )(x)
        return x


def spread_and_gain(method):
    """Standard deviation of the output for standard normal inputs; rms singular value of the
    Jacobian, from a random cotangent."""
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 32))
    blocks = Blocks(method)
    variables = jax.jit(blocks.init)(jax.random.key(0), x)

    @jax.jit
    def run(x, u):
        y, pull = jax.vjp(lambda x: blocks.apply(variables, x), x)
        return y.std(), jnp.linalg.norm(pull(u)[0]) / jnp.linalg.norm(u)

    return tuple(map(float, run(x, jax.random.normal(jax.random.key(2), x.shape))))


@pytest.mark.slow
def test_residual_normprop():
    """Through five blocks: unit variance at scale 1, unit gradients at the initial 1 / 1.21.

    (Zeros at the border of the image have no variance, so both are a little less.)
    """
    method = make_method("normprop")
    spread, gain = spread_and_gain(method)
    assert gain == pytest.approx(1, abs=0.15)
    assert 0.4 < spread < 0.8  # its fixed point is 1/2: the constants do not follow the scale
    at_one = method._replace(conv=partial(method.conv, scale_init=nn.initializers.ones))
    spread, gain = spread_and_gain(at_one)
    assert spread == pytest.approx(1, abs=0.15)
    plain_spread, plain_gain = spread_and_gain(make_method("none"))
    assert plain_spread > 3
    assert plain_gain > 3


def test_options_reach_the_layers():
    config = NormConfig(num_groups=2, rate=0.25, epsilon=0.5, momentum=0.3)
    micro = make_method("bcn-micro", config, Context("i")).norm()
    fields = ("num_groups", "rate", "epsilon", "axis_name")
    assert [getattr(micro, name) for name in fields] == [2, 0.25, 0.5, "i"]
    bcn = make_norm("bcn", num_groups=2, epsilon=0.5, momentum=0.3, axis_name="i")()
    fields = ("num_groups", "rate", "epsilon", "momentum", "axis_name")
    assert [getattr(bcn, name) for name in fields] == [2, None, 0.5, 0.3, "i"]
    # The layer that starts a branch at 0 does so by its group-wise scale.
    zero = make_norm("bcn")(scale_init=nn.initializers.zeros)
    assert zero.group_scale_init is nn.initializers.zeros
    assert zero.scale_init is nn.initializers.ones
    for name in ("ln", "in", "rms", "gn"):
        layer = make_norm(name, epsilon=0.5)(axis_name="i", use_running_average=True)
        assert (layer.epsilon, layer.axis_name) == (0.5, None)  # other devices, other samples


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_method("foo"), r"`norm` \(='foo'\) is unknown; choose from bn, ubn, gn"),
        (lambda: make_method("bn+foo"), r"conv \(='foo' in 'bn\+foo'\) .* choose from ws, wn"),
        (lambda: make_method("bn+ws+wn"), r"norm \(='bn\+ws\+wn'\) has more than one '\+'"),
        (lambda: make_method("normprop+ws"), "normprop brings convolutions of its own"),
        (lambda: make_norm("normprop"), "replaces more of the network than its normalization"),
        (lambda: make_norm("bn+ws"), "build the network from make_method"),
        (lambda: make_method("bcn-micro"), "needs a learning rate, and there is none outside"),
        (lambda: NormConfig(rate=1.5), r"`rate` \(=1.5\) must be in \[0, 1\]"),
        (lambda: NormConfig(rate="lr"), r"`rate` \(='lr'\) must be learning-rate, or a number"),
        (lambda: NormConfig(num_groups=0), r"`num_groups` \(=0\) must be a positive number"),
        (lambda: modules(make_model(TrainConfig(norm=NormConfig(num_groups=3)), "bcn", 10,
                                    Context())), r"`num_groups` \(=3\) must divide .* \(=16\)"),
    ],
)  # fmt: skip
def test_bad_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()
