"""`add_alpha` and `drop_alpha` of states of training, of nnx, and of checkpoints."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import core, nnx
from flax.training import train_state

from tests.linen.unitized_models import MODELS
from tests.oracle import assert_close
from unitnorm_jax import optim
from unitnorm_jax.linen import BatchNorm, add_alpha, drop_alpha, unitize

X = 2 + jax.random.normal(jax.random.key(0), (8, 3))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def variables(freeze=lambda tree: tree):
    norm = {"scale": jnp.array([1.0, 2.0]), "bias": jnp.array([0.5, -0.5])}
    stats = {"mean": jnp.array([1.0, -1.0]), "var": jnp.array([2.0, 3.0])}
    params = {"dense": {"kernel": jnp.eye(2)}, "norm": norm, "prelu": {"alpha": jnp.ones(2)}}
    return {"params": freeze(params), "batch_stats": {"norm": stats}}


class TrainState(train_state.TrainState):
    batch_stats: Any


def is_kernel(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def labels(params):
    return jax.tree.map(lambda one: "kernel" if one else "rest", is_kernel(params))


OPTIMIZERS = {
    "sgd": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1, mask=is_kernel)
    ),
    "multi_transform": optax.multi_transform(
        {"kernel": optax.adam(1e-2), "rest": optax.rmsprop(1e-2)}, labels
    ),
    "masked": optax.chain(optax.masked(optax.trace(0.9), is_kernel), optax.sgd(0.1)),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "ema": optax.chain(optax.ema(0.9), optax.sgd(optax.linear_schedule(0.1, 0.0, 10))),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
}


@pytest.mark.parametrize("freeze", [lambda tree: tree, core.freeze], ids=["", "frozen"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on(name, freeze):
    """After three updates alpha comes; all others get bit for bit the updates that they would."""
    tree = variables(freeze)
    state = TrainState.create(apply_fn=None, tx=OPTIMIZERS[name], **tree)

    def gradients(state, seed):
        """A bounded gradient of each old parameter, whatever others there are; 0 for alpha."""

        def one(path, leaf):
            if [key.key for key in path] == ["norm", "alpha"]:
                return jnp.zeros_like(leaf)
            return jnp.cos(seed + leaf + path[0].key.__len__())

        return jax.tree_util.tree_map_with_path(one, state.params)

    @jax.jit
    def step(state, seed):
        return state.apply_gradients(grads=gradients(state, seed))

    for seed in range(3):
        state = step(state, seed)
    more = add_alpha(state)
    assert jax.tree.structure(more.opt_state) == jax.tree.structure(state.tx.init(more.params))
    old = dict(jax.tree_util.tree_leaves_with_path(state.opt_state))
    for path, leaf in jax.tree_util.tree_leaves_with_path(more.opt_state):
        if path in old:
            np.testing.assert_array_equal(leaf, old[path])
        else:
            assert "['norm']['alpha']" in jax.tree_util.keystr(path)
            np.testing.assert_array_equal(leaf, np.zeros(2))
    assert int(more.step) == 3
    for seed in range(3, 6):
        state, more = step(state, seed), step(more, seed)
    same(drop_alpha(more).params, state.params)
    same(drop_alpha(more).opt_state, state.opt_state)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (
        tree["params"], state.params)), strict=True)]  # fmt: skip
    assert min(moved) > 1e-3


def test_alpha_moves_further_first_with_the_old_count_of_adam():
    """By (1 - b1) / sqrt(1 - b2) times the rate, as the docstring says."""
    state = TrainState.create(apply_fn=None, tx=optax.adam(1e-2), **variables())
    ones = jax.tree.map(jnp.ones_like, state.params)
    count = jnp.array(100_000)
    late = state.replace(opt_state=(state.opt_state[0]._replace(count=count), *state.opt_state[1:]))
    late = add_alpha(late)
    ones["norm"] = {**ones["norm"], "alpha": jnp.ones(2)}
    after = late.apply_gradients(grads=ones)
    expected = -1e-2 * 0.1 / np.sqrt(0.001)
    assert_close(after.params["norm"]["alpha"], np.full(2, expected), 1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tx": optax.flatten(optax.adam(1e-2))},
            r"has shape \(10,\), not \(12,\)\. The state must",
        ),
        ({"opt_state": optax.sgd(1.0).init({})}, r"`opt_state`.* is not what `tx.init` gives"),
        ({"batch_stats": {}}, r"`variables` \(=TrainState\) must have `batch_stats`"),
        (
            {"tx": optax.masked(optax.trace(0.9), is_kernel(variables()["params"]))},
            r"`tx` does not take .*: masks and labels must be functions",
        ),
    ],
    ids=["flatten", "another tx", "no statistics", "mask as a tree"],
)
def test_states_that_cannot_be_converted(change, message):
    tx = change.get("tx", optax.adam(1e-2))
    state = TrainState.create(apply_fn=None, **{**variables(), "tx": tx})
    with pytest.raises(ValueError, match=message):
        add_alpha(state.replace(**change))


def test_a_state_without_the_field():
    tree = variables()
    state = train_state.TrainState.create(apply_fn=None, params=tree["params"], tx=optax.sgd(0.1))
    with pytest.raises(ValueError, match="declare such a field in a subclass of TrainState"):
        add_alpha(state)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)]
        )
        self.last = nnx.BatchNorm(4, use_scale=False, use_bias=False, rngs=rngs)


@pytest.mark.parametrize("of", ["split", "state", "pure"])
def test_states_of_nnx(of):
    model = Nnx(nnx.Rngs(0))
    state = nnx.split(model)[1] if of == "split" else nnx.state(model)
    state = nnx.to_pure_dict(state) if of == "pure" else state
    more = add_alpha(state)
    assert type(more) is type(state)
    flat = dict(jax.tree_util.tree_leaves_with_path(more))
    old = dict(jax.tree_util.tree_leaves_with_path(state))
    added = {jax.tree_util.keystr(path): flat[path] for path in flat.keys() - old.keys()}
    end = "" if of == "pure" else ".value"
    assert added.keys() == {f"['layers'][0]['alpha']{end}", f"['last']['alpha']{end}"}
    assert all(not leaf.any() for leaf in added.values())
    assert all(flat[path] is old[path] for path in old)
    if of != "pure":
        assert type(more["last"]["alpha"]) is nnx.Param
    same(drop_alpha(more), state)


def test_metadata_of_nnx():
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0), scale_metadata={"note": "model"})
    alpha = add_alpha(nnx.state(norm))["alpha"]
    assert alpha.get_metadata()["note"] == "model"
    with pytest.raises(ValueError, match=r"Give all that .*all of `nnx.state\(model\)`"):
        add_alpha(nnx.state(norm, nnx.Param))


@pytest.mark.parametrize("tree", [3, "text", None, [1]])
def test_other_things(tree):
    with pytest.raises(ValueError, match=r"`variables` \(=\w+\) must be collections of variables"):
        add_alpha(tree)


def test_select():
    plain = MODELS["compact"](nn.BatchNorm)
    tree = plain.init(jax.random.key(0), X)
    model = unitize(plain, select=lambda bn: bn.path == ("last",))
    more = add_alpha(tree, select=lambda path: path == "last")
    same(more, {**tree, "params": model.init(jax.random.key(0), X)["params"]})
    with pytest.raises(ValueError, match=r"`select` leaves out .*: BatchNorm_0, last; select"):
        add_alpha(tree, select=lambda path: False)
    both = add_alpha(more, select=lambda path: path == "BatchNorm_0")
    same(drop_alpha(both, select=lambda path: path != "last"), more)
    same(drop_alpha(both), tree)


@pytest.mark.parametrize("name", ["compact", "scan", "vmap", "setup"])
def test_models_there_and_back(name):
    """Layers that are stacked by a transform have a stacked alpha."""
    plain, unitized = MODELS[name](nn.BatchNorm), MODELS[name](BatchNorm)
    tree = plain.init(jax.random.key(0), X)
    more = add_alpha(tree)
    expected = jax.eval_shape(unitized.init, jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, more) == jax.tree.map(jnp.shape, expected)
    same(drop_alpha(more), tree)
    same(drop_alpha(core.freeze(more)), core.freeze(tree))


def test_boxes_there_and_back():
    init = nn.with_partitioning(nn.initializers.ones, ("model",))
    tree = nn.BatchNorm(use_running_average=True, scale_init=init).init(jax.random.key(0), X)
    more = add_alpha(tree)
    assert more["params"]["alpha"].names == ("model",)
    same(drop_alpha(more), tree)


def test_structures():
    tree = jax.eval_shape(lambda: variables())
    more = add_alpha(tree)
    assert more == jax.eval_shape(lambda: add_alpha(variables()))
    assert isinstance(more["params"]["norm"]["alpha"], jax.ShapeDtypeStruct)
    with pytest.raises(ValueError, match="`drop_alpha` must see the value of norm/alpha"):
        drop_alpha(more)
    with pytest.raises(ValueError, match="`drop_alpha` must see the value of norm/alpha"):
        jax.jit(drop_alpha)(add_alpha(variables()))


@pytest.mark.parametrize(("value", "said"), [(-0.25, "-0.25"), (np.nan, "nan"), (1e-30, "1e-30")])
def test_an_alpha_that_is_not_zero_stays(value, said):
    more = add_alpha(variables())
    more["params"]["norm"]["alpha"] = jnp.array([0.0, value])
    with pytest.raises(ValueError, match=rf"`alpha` at norm/alpha \(={said} in a channel\) must"):
        drop_alpha(more)


def test_nothing_to_drop():
    with pytest.raises(ValueError, match="No layer of `variables` has an `alpha`"):
        drop_alpha(variables())
    with pytest.raises(ValueError, match="`params` has an `alpha` at norm already"):
        add_alpha(add_alpha(variables()))


def test_an_orbax_checkpoint_of_a_run_with_batch_norm(tmp_path):
    """Saved by a TrainState of the model as written; training goes on with the unitized one."""
    plain = MODELS["compact"](nn.BatchNorm)
    tree = plain.init(jax.random.key(0), X)

    def create(model, tree):
        tx = optax.sgd(0.01, momentum=0.9)
        return TrainState.create(apply_fn=model.apply, tx=tx, **tree)

    @jax.jit
    def step(state):
        def loss(params):
            given = {"params": params, "batch_stats": state.batch_stats}
            y, new = state.apply_fn(given, X, mutable=["batch_stats"])
            return jnp.sum(jnp.square(y)), new

        grads, new = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=new["batch_stats"])

    state = step(create(plain, tree))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", state)
        checkpointer.wait_until_finished()
        target = jax.eval_shape(lambda: create(plain, tree))
        restored = checkpointer.restore(tmp_path / "run", target)
    model = unitize(plain, unit="rms")
    ours = step(add_alpha(restored.replace(apply_fn=model.apply)))
    theirs = step(state)
    assert np.abs(ours.params["last"]["alpha"]).max() > 1e-3
    back = drop_alpha(optim.set_alpha(ours, 0.0))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, size=0.01), back.params, theirs.params)
    assert jax.tree.structure(back.opt_state) == jax.tree.structure(theirs.opt_state)
