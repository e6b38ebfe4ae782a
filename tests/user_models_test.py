"""Models of other people: unitized by one line, trained, saved, probed, exported, taken back."""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict

from tests.user_models import UserModel
from unitnorm_jax import ICSProbe, linen, optim, unitize

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parent / "user_models").glob("*.py")
    if path.stem != "__init__"
)
STEPS = 5


class State(TrainState):
    batch_stats: Any

    @property
    def variables(self):
        return {"params": self.params, "batch_stats": self.batch_stats}


@pytest.fixture(scope="module", autouse=True)
def _as_their_owners_run_them():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module", params=NAMES)
def user(request) -> UserModel:
    return importlib.import_module(f"tests.user_models.{request.param}").USER_MODEL


@pytest.fixture(scope="module")
def variables(user):
    args = jax.tree.map(jnp.asarray, user.batches[0])
    return jax.jit(lambda key: user.model.init(key, *args, **user.train))(jax.random.key(0))


@pytest.fixture(scope="module")
def model(user):
    return unitize(user.model, unit="rms")


def with_alpha(user, variables):
    """Load a checkpoint of the layers that `unitize` converts: others may look alike in it."""
    layers = linen.unitized_layers(unitize(user.model), *user.batches[0], **user.train)
    converted = {layer.path for layer in layers if layer.converted}
    return linen.add_alpha(variables, select=lambda path: path in converted)


def train(user, model, variables, tx, steps=STEPS):
    """As their owners do: one update for all calls of a step, statistics passed on."""

    def loss(params, batch_stats):
        total = 0.0
        for args in user.batches:
            collections = {"params": params, "batch_stats": batch_stats}
            y, updated = model.apply(collections, *args, **user.train, mutable=["batch_stats"])
            total, batch_stats = total + jnp.mean(jnp.square(y - 1)), updated["batch_stats"]
        return total, batch_stats

    @jax.jit
    def step(state):
        gradients, batch_stats = jax.grad(loss, has_aux=True)(state.params, state.batch_stats)
        return state.apply_gradients(grads=gradients, batch_stats=batch_stats)

    state = State.create(apply_fn=model.apply, tx=tx, **variables)
    states = [state]
    for _ in range(steps):
        states.append(step(states[-1]))
    return states


@pytest.fixture(scope="module")
def trained(user, model, variables):
    return train(user, model, with_alpha(user, variables), optax.adam(1e-2))


def evaluate(model, user, variables):
    return jax.jit(lambda v: model.apply(v, *user.batches[0], **user.eval))(variables)


def alphas(params):
    return {p[:-1]: leaf for p, leaf in flatten_dict(params).items() if p[-1] == "alpha"}


def test_its_layers_are_unitized(user, model, variables):
    layers = linen.unitized_layers(model, *user.batches[0], **user.train)
    assert sum(layer.converted for layer in layers) == user.converted
    assert sum(not layer.converted for layer in layers) == user.left_alone
    args = jax.tree.map(jnp.asarray, user.batches[0])
    made = jax.eval_shape(lambda key: model.init(key, *args, **user.train), jax.random.key(0))
    loaded = jax.eval_shape(lambda: with_alpha(user, variables))
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), made, loaded)
    assert all(jax.tree.leaves(same))
    assert len(alphas(made["params"])) == user.converted


def test_a_checkpoint_of_batch_norm_goes_in(user, model, variables):
    """At alpha = 0 it computes the same."""
    loaded = with_alpha(user, variables)
    before, after = (evaluate(m, user, v) for m, v in ((user.model, variables), (model, loaded)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_it_trains(user, trained):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained[-1].variables))
    moved = alphas(trained[-1].params)
    assert len(moved) == user.converted
    assert all(np.any(alpha != 0) for alpha in moved.values())


def test_a_checkpoint_goes_out(user, model, variables, trained, tmp_path):
    """Through a folder of orbax, and back into `nn.BatchNorm` where alpha stayed at 0."""
    frozen = optax.chain(optax.adam(1e-2), optim.freeze_alpha())
    state = train(user, model, with_alpha(user, variables), frozen, steps=2)[-1]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", state.variables)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "run", jax.eval_shape(lambda: state.variables))
    plain = linen.drop_alpha(restored)
    assert jax.tree.structure(plain) == jax.tree.structure(variables)
    np.testing.assert_allclose(
        evaluate(user.model, user, plain),
        evaluate(model, user, state.variables),
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="alpha"):
        linen.drop_alpha(trained[-1].variables)


def test_its_shift_is_measured(user, model, trained):
    probe = ICSProbe(
        model, user.batches[0], mode="train", train_kwargs=dict(user.train), **user.probe
    )
    # Not the first update: before it, a scale of 0 makes some outputs the same for all samples.
    rows = probe(trained[1].variables, trained[2].variables).rows()
    kinds = {row["kind"] for row in rows}
    assert not kinds - {"BatchNorm", "BatchRenorm"}
    assert all(row["reason"] == "" and np.isfinite(row["value"]) for row in rows)
    assert all(row["certified_lower"] <= row["value"] <= row["certified_upper"] for row in rows)
    assert {row["statistics"] for row in rows} == {"batch"}
    names = {row["layer"].split("[")[0] for row in rows}
    assert len(names) == user.converted + user.left_alone


def test_it_is_exported_and_read_again(user, model, trained):
    final = trained[-1].variables
    run = jax.jit(lambda v, *args: model.apply(v, *args, **user.eval))
    exported = jax.export.export(run)(final, *user.batches[0])
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(again.call(final, *user.batches[0]), evaluate(model, user, final))
