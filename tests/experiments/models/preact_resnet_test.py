"""The paper's networks: parameter counts, and the authors' ResNet-18 run in float64."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods, models
from experiments.models import preact_resnet
from experiments.training import steps
from tests.experiments.models.authors import paper_norms

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "resnet18"
PREFIX = "cifar-resnet-18-"
MOMENTUM = 0.99
# Equal shapes are compiled once, so that these tests are quick.
TINY = {"blocks": (1, 1), "widths": (8, 8)}


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# The authors' figures count every array Keras stores: the running statistics are in them.
@pytest.mark.parametrize(
    ("make", "norm", "trainable", "with_statistics"),
    [
        (models.resnet18, "ubn", 273_802, 275_210),
        (models.resnet18, "bn", 273_098, 274_506),
        (models.resnet110, "ubn", 1_738_762, 1_746_890),
        (models.resnet110, "bn", 1_734_698, 1_742_826),
        (models.resnet164, "ubn", 1_727_978, 1_752_234),
        (models.resnet164, "bn", 1_715_850, 1_740_106),
    ],
)
def test_parameter_counts_of_the_paper(make, norm, trainable, with_statistics):
    model = make(norm=methods.make_norm(norm))
    x = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
    assert count(variables) == with_statistics
    assert count(variables["params"]) == trainable


def test_weight_layers_of_resnet18():
    x = jnp.zeros((1, 32, 32, 3))
    model = models.resnet18()
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    kernels = [p for p in paths if p[-1].key == "kernel" and p[-2].key != "shortcut"]
    assert len(kernels) == 20


def test_initial_weights_do_not_depend_on_the_norm():
    x = jnp.zeros((1, 8, 8, 1))

    def weights(name):
        model = models.PreActResNet(**TINY, norm=methods.make_norm(name))
        params = model.init(jax.random.key(3), x, train=False)["params"]
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return {p: leaf for p, leaf in leaves if "norm" not in jax.tree_util.keystr(p)}

    bn = weights("bn")
    assert len(bn) == 14  # 7 layers with weights, kernel and bias each
    for norm in ("ubn", "gn", "none"):
        ours = weights(norm)
        assert ours.keys() == bn.keys()
        for path, leaf in bn.items():
            np.testing.assert_array_equal(ours[path], leaf)


def test_ubn_starts_as_batch_normalization():
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))

    def logits(name):
        model = models.PreActResNet(**TINY, norm=methods.make_norm(name))
        variables = model.init(jax.random.key(3), x, train=False)
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    np.testing.assert_allclose(logits("ubn"), logits("bn"), rtol=2e-5, atol=2e-5)


def test_norm_paths_are_the_norms_in_order_of_execution():
    model = models.PreActResNet(blocks=(1, 2), widths=(4, 8), bottleneck=True)
    seen = []

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            seen.append(context.module.path)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note):
        images = jnp.zeros((1, 8, 8, 1))
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    assert model.norm_paths() == seen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": (1, 1), "widths": (4,)}, r"`widths` \(=\(4,\)\) must have one entry per stage"),
        ({"norm": (nn.BatchNorm,)}, r"`norm` is a tuple of 1, but must .* stage: 3"),
    ],
)
def test_stages_must_agree(fields, message):
    model = models.PreActResNet(**fields)
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)


# --- The authors' network -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_dir():
        pytest.skip(f"golden vectors of the authors' ResNet-18 are not at {GOLDEN}")
    with np.load(GOLDEN / "resnet18_unitization_init_f64.npz") as file:
        return dict(file)


def flax_path(layer: str) -> tuple[str, ...]:
    """Path of the authors' ``layer`` in our variables."""
    fixed = {
        "pre-conv": "stem_conv",
        "pre-unit": "stem_norm",
        "fin-unit": "head_norm",
        "outputs": "head",
    }
    if layer in fixed:
        return (fixed[layer],)
    _, index, kind, *number = layer.split("-")
    return (f"block_{index}", "_".join([{"unit": "norm"}.get(kind, kind), *number]))


FLAX_NAMES = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


def tree(golden: dict[str, np.ndarray], group: str) -> dict[str, Any]:
    """The arrays of ``group`` (w0, g0, w1, w5) as our variables."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, value in golden.items():
        if not name.startswith(f"{group}/"):
            continue
        _, layer, weight = name.split("/")
        collection, weight = FLAX_NAMES.get(weight, ("params", weight))
        node = variables[collection]
        for part in flax_path(layer.removeprefix(PREFIX)):
            node = node.setdefault(part, {})
        node[weight] = jnp.asarray(value)
    return variables


def debiased(batch_stats: Any, updates: int) -> Any:
    """Flax's running statistics, an average from (0, 1), as the authors' zero-debiased ones."""
    kept = MOMENTUM**updates

    def layer(node: Any) -> Any:
        if "mean" in node:
            return {"mean": node["mean"] / (1 - kept), "var": (node["var"] - kept) / (1 - kept)}
        return {name: layer(child) for name, child in node.items()}

    return layer(batch_stats)


def assert_trees_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Compares relative to the largest entry of each array."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for path, e in jax.tree_util.tree_leaves_with_path(expected):
        a = actual
        for part in path:
            a = a[part.key]
        assert a.dtype == jnp.float64
        name = jax.tree_util.keystr(path)
        # The gradient of a bias before a norm is zero, so what is there is roundoff.
        scale = max(float(jnp.abs(e).max()), 1e-5)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.fixture(scope="module")
def paper_model():
    return models.resnet18(norm=paper_norms(image_size=32))


def test_layer_graph_is_the_authors(golden):
    names = json.loads((GOLDEN / "resnet18_names.json").read_text())["unitization"]
    expected = {
        flax_path(layer["name"].removeprefix(PREFIX)): tuple(layer["strides"])
        for layer in names["layers"]
        if layer["cls"] == "Conv2D"
    }
    seen = {}

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
            strides = context.module.strides
            seen[context.module.path] = (strides,) * 2 if isinstance(strides, int) else strides
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note):
        init = partial(models.resnet18().init, train=False)
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert seen == expected


@pytest.mark.parametrize("images", ["x", "x16"])
@pytest.mark.parametrize("train", [False, True])
def test_logits(golden, paper_model, images, train):
    with jax.enable_x64(True):
        w0 = tree(golden, "w0")
        logits, _ = jax.jit(partial(paper_model.apply, train=train, mutable=["batch_stats"]))(
            w0, jnp.asarray(golden[images])
        )
        size = "16" if images == "x16" else ""
        expected = golden[f"{'train' if train else 'infer'}{size}_logits"]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-11)


def test_five_steps(golden, paper_model):
    with jax.enable_x64(True):
        w0 = tree(golden, "w0")
        # Only a zero-debiased average forgets where it starts, so Flax's starts from its own.
        start = {"mean": jnp.zeros_like, "var": jnp.ones_like}
        batch_stats = jax.tree_util.tree_map_with_path(
            lambda path, leaf: start[path[-1].key](leaf), w0["batch_stats"]
        )
        state = steps.TrainState.create(
            apply_fn=paper_model.apply,
            params=w0["params"],
            tx=optax.sgd(0.05, momentum=0.9, nesterov=True),
            batch_stats=batch_stats,
            key=jax.random.key(0),
        )
        step = jax.jit(partial(steps.train_step, weight_penalty=5e-4))
        batch = {"image": jnp.asarray(golden["x"]), "label": jnp.asarray(golden["labels"])}
        losses, accuracies = [], []
        for update in range(5):
            state, metrics = step(state, batch)
            losses.append(metrics["loss"].item())
            accuracies.append(metrics["accuracy"].item())
            if update == 0:
                # The trace of Nesterov's momentum after one step is the gradient.
                trace = state.opt_state[0].trace
                assert_trees_close(trace, tree(golden, "g0")["params"], 1e-9)
                stats = debiased(state.batch_stats, 1)
                assert_trees_close(stats, tree(golden, "w1")["batch_stats"], 1e-10)
        np.testing.assert_allclose(losses[0], golden["loss0_train_phase"], rtol=0, atol=1e-11)
        np.testing.assert_allclose(losses, golden["losses_total"], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(accuracies, golden["acc"])
        w5 = tree(golden, "w5")
        assert_trees_close(state.params, w5["params"], 1e-8)
        stats = debiased(state.batch_stats, 5)
        assert_trees_close(stats, w5["batch_stats"], 1e-8)
        logits = paper_model.apply(
            {"params": state.params, "batch_stats": stats}, batch["image"], train=False
        )
        np.testing.assert_allclose(logits, golden["after5_infer_logits"], rtol=0, atol=1e-8)


def test_without_shortcuts_a_block_is_its_branch():
    norm = partial(nn.BatchNorm, use_running_average=True)
    fields = {"filters": (4, 4), "kernel_sizes": (3, 3), "strides": 1, "norm": norm}
    block = preact_resnet.Block(**fields)
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    variables = block.init(jax.random.key(1), x)
    plain = preact_resnet.Block(**fields, add=None)
    np.testing.assert_allclose(plain.apply(variables, x) + x, block.apply(variables, x), rtol=1e-5)
    network = models.PreActResNet(blocks=(1, 1), widths=(4, 8), add=None)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    assert "shortcut" not in shapes["params"]["block_1"]
