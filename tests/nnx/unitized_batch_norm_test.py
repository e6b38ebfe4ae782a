"""The nnx module: linen's bit for bit, and at alpha 0 whatever `flax.nnx.BatchNorm` is."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.oracle import assert_close
from unitnorm_jax import linen
from unitnorm_jax.nnx import UnitizedBatchNorm

OWN = {
    "unit": "reference",
    "alpha_init": nnx.initializers.zeros_init(),
    "sample_axis": 0,
    "bessel_correction": False,
    "alpha_metadata": {},
}
CHANNELS = 5
NAMES = ("scale", "bias", "alpha")


def inputs(*shape, dtype=jnp.float32):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (*shape, CHANNELS))
    return x.astype(dtype)


def layer(cls=UnitizedBatchNorm, **options):
    """A layer whose parameters and statistics are moved off their first values."""
    made = cls(CHANNELS, rngs=nnx.Rngs(0), **options)
    for i, name in enumerate((*NAMES, "mean", "var")):
        variable = getattr(made, name, None)
        if variable is not None:
            value = jnp.linspace(0.1 * i, 1 + 0.1 * i, CHANNELS)
            variable[...] += value.astype(variable[...].dtype)
    return made


def pure(made, **call):
    """A layer as a function of its parameters, its statistics and an input."""
    graph, params, stats = nnx.split(made, nnx.Param, nnx.BatchStat)

    def run(params, stats, x):
        merged = nnx.merge(graph, params, stats, copy=True)
        y = merged(x, **call)
        return y, nnx.state(merged, nnx.BatchStat)

    return run, params, stats


def value_and_grads(run, params, stats, x):
    dy = jax.random.normal(jax.random.key(3), x.shape)

    @jax.jit
    def step(params, stats, x):
        def loss(params, x):
            y, new = run(params, stats, x)
            return jnp.sum(y.astype(jnp.float32) * dy), (y, new)

        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jax.grad(lambda p: loss(p, x), has_aux=True)(params)
        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    return step(params, stats, x)


def leaves(tree):
    """Arrays by the last part of their path, of linen's trees and nnx's."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        named = [str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey)]
        found["/".join(named[-1:]) or str(len(found))] = np.asarray(leaf)
    return found


CASES = {
    "reference": ((8, 3, 2), {}, {}),
    "sample": ((8, 3, 2), {"unit": "sample"}, {"mask": True}),
    "rms bfloat16": ((8, 3, 2), {"unit": "rms"}, {"dtype": jnp.bfloat16}),
    "position": ((8, 3), {"unit": "position"}, {}),
    "kappa": ((8, 3), {"unit": 0.3, "bessel_correction": True, "epsilon": 1e-3}, {}),
    "dense float16": ((8,), {"dtype": jnp.float16, "momentum": 0.9}, {"dtype": jnp.float16}),
    "integers": ((8,), {"use_fast_variance": False}, {"dtype": jnp.int8}),
    "bfloat16 parameters": ((8,), {"param_dtype": jnp.bfloat16, "dtype": jnp.float32}, {}),
    "no parameters": ((8, 3), {"use_scale": False, "use_bias": False}, {"mask": True}),
    "time-major": ((3, 8, 2), {"sample_axis": (0, 1), "unit": "rms"}, {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_linen_and_nnx_are_one_layer(name, train):
    """Forward, backward and statistics, bit for bit."""
    shape, options, call = CASES[name]
    x = inputs(*shape, dtype=call.get("dtype", jnp.float32))
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (*shape, 1)) if call.get("mask") else None
    ours = layer(**options)
    run, params, stats = pure(ours, use_running_average=not train, mask=mask)
    module = linen.UnitizedBatchNorm(use_running_average=not train, **options)
    held = {n: getattr(ours, n)[...] for n in NAMES if getattr(ours, n) is not None}
    kept = {"mean": ours.mean[...], "var": ours.var[...]}

    def theirs(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = module.apply(variables, x, mask=mask, mutable=["batch_stats"])
        return y, new["batch_stats"]

    actual = leaves(value_and_grads(run, params, stats, x))
    desired = leaves(value_and_grads(theirs, held, kept, x))
    assert actual.keys() == desired.keys() >= {"alpha", "mean", "var"}
    for key, value in desired.items():
        assert actual[key].dtype == value.dtype
        np.testing.assert_array_equal(actual[key], value, err_msg=key)
        assert np.any(value != 0), key


def both(x, train=True, call=None, **options):
    """Results and new statistics of Flax's layer and ours at alpha 0."""
    out = []
    for cls in (nnx.BatchNorm, UnitizedBatchNorm):
        made = layer(cls, use_running_average=not train, **options)
        if cls is UnitizedBatchNorm:
            made.alpha[...] *= 0
        y = nnx.jit(lambda m, x: m(x, **(call or {})))(made, x)
        out.append((y, made.mean[...], made.var[...]))
    return out


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (jnp.float32, {}),
        (jnp.float32, {"axis": 1, "momentum": 0.5, "epsilon": 0.1}),
        (jnp.float32, {"dtype": jnp.bfloat16}),
        (jnp.bfloat16, {}),
        (jnp.bfloat16, {"param_dtype": jnp.bfloat16}),
        (jnp.float16, {"dtype": jnp.float16, "use_bias": False}),
        (jnp.int8, {}),
        (jnp.uint8, {"use_scale": False, "use_bias": False}),
        (jnp.bool_, {"use_fast_variance": False}),
    ],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_drop_in(dtype, options, train):
    x = inputs(8, CHANNELS, 4)
    x = (x > 2 if dtype == jnp.bool_ else jnp.abs(x)).astype(dtype)
    (expected, *stats), (y, *new) = both(x, train, **options)
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    # Flax rounds the input, where a dtype is given, before it takes statistics.
    tol = 4e-2 if jnp.bfloat16 in options.values() or jnp.float16 in options.values() else 1e-4
    assert_close(y, expected, tol)
    for a, b in zip(new, stats, strict=True):
        assert a.dtype == jnp.float32
        assert_close(a, b, 1e-2 if "dtype" in options else 1e-4)


def test_masks_drop_in():
    x = inputs(8, 4)
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (8, 4, 1))
    (expected, *stats), (y, *new) = both(x, call={"mask": mask})
    for a, b in zip((y, *new), (expected, *stats), strict=True):
        assert_close(a, b, 1e-4)


def test_arguments_begin_with_those_of_batch_norm():
    theirs, ours = (
        list(inspect.signature(inspect.unwrap(cls.__init__)).parameters.values())
        for cls in (nnx.BatchNorm, UnitizedBatchNorm)
    )
    for a, b in zip(theirs, ours[: len(theirs)], strict=True):
        assert (b.name, b.kind, b.default) == (a.name, a.kind, a.default)
    own = {p.name: p.default for p in ours[len(theirs) :]}
    assert own == OWN
    assert list(own) == list(OWN)


class Net(nnx.Module):
    def __init__(self, norm, rngs, **options):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = norm(4, rngs=rngs, **options)
        self.last = nnx.Linear(4, 2, rngs=rngs)


def test_variables_and_keys_are_those_of_batch_norm():
    random = {"scale_init": nnx.initializers.normal(), "bias_init": nnx.initializers.normal()}
    streams = [nnx.Rngs(params=1, default=2) for _ in range(2)]
    theirs = Net(nnx.BatchNorm, streams[0], **random)
    ours = Net(UnitizedBatchNorm, streams[1], alpha_init=nnx.initializers.normal(), **random)
    a, b = (dict(nnx.to_flat_state(nnx.state(model))) for model in (theirs, ours))
    assert b.keys() - a.keys() == {("norm", "alpha")}
    for path, variable in a.items():
        assert type(b[path]) is type(variable)
        np.testing.assert_array_equal(b[path][...], variable[...])
    for stream in ("params", "default"):
        assert getattr(streams[0], stream).count[...] == getattr(streams[1], stream).count[...]
    alpha = ours.norm.alpha
    assert type(alpha) is nnx.Param
    assert alpha.shape == (4,)
    for other in (ours.norm.scale, ours.norm.bias):  # by a key of its own
        assert np.abs(alpha[...] - other[...]).min() > 1e-6
    again = Net(UnitizedBatchNorm, nnx.Rngs(params=1), alpha_init=nnx.initializers.normal())
    np.testing.assert_array_equal(again.norm.alpha[...], alpha[...])


def test_alpha():
    made = UnitizedBatchNorm(3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(made.alpha[...], np.zeros(3))
    assert made.alpha[...].dtype == jnp.bfloat16
    quarter = nnx.initializers.constant(0.25)
    made = UnitizedBatchNorm(3, alpha_init=quarter, alpha_metadata={"tag": "a"}, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(made.alpha[...], np.full(3, 0.25))
    assert made.alpha.get_metadata("tag") == "a"
    assert "tag" not in made.scale.get_metadata()


def test_without_parameters_no_rngs_are_needed():
    bare = {"use_scale": False, "use_bias": False, "rngs": None}
    nnx.BatchNorm(3, **bare)
    assert UnitizedBatchNorm(3, **bare).scale is None
    assert UnitizedBatchNorm(3, alpha_init=nnx.initializers.ones, **bare).alpha[0] == 1
    with pytest.raises(ValueError, match=r"`rngs` \(=None\).*`alpha_init`.*nnx\.Rngs\(0\)"):
        UnitizedBatchNorm(3, alpha_init=nnx.initializers.normal(), **bare)


def test_modes():
    """The call before the constructor, `train`, `eval` and `nnx.view`."""
    made = layer()
    x = inputs(8)

    def moves(made, *args, **options):
        before = made.mean[...]
        made(x, *args, **options)
        return bool((made.mean[...] != before).any())

    assert moves(made)
    assert not moves(made, use_running_average=True)
    assert not moves(made, True)
    made.eval()
    assert not moves(made)
    assert moves(made, use_running_average=False)
    made.train()
    assert moves(made)
    assert not moves(nnx.view(made, use_running_average=True))
    assert "use_running_average" in nnx.view_info(made)
    made.use_running_average = None
    with pytest.raises(ValueError, match=r"`use_running_average` \(=None\).*nnx\.view"):
        made(x)


def test_errors_come_through():
    with pytest.raises(ValueError, match="`unit` \\(='samples'\\)"):
        UnitizedBatchNorm(3, unit="samples", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"`mean` has shape \(4,\).*\(5,\)"):
        UnitizedBatchNorm(4, rngs=nnx.Rngs(0))(inputs(8))
    with pytest.raises(ValueError, match="rank >= 2"):
        UnitizedBatchNorm(CHANNELS, rngs=nnx.Rngs(0))(inputs())
    with pytest.raises(ValueError, match=r"`axis_name` \(='batch'\).*none maps it"):
        UnitizedBatchNorm(CHANNELS, axis_name="batch", rngs=nnx.Rngs(0))(inputs(8))
    with pytest.raises(ValueError, match="empty"):
        UnitizedBatchNorm(CHANNELS, rngs=nnx.Rngs(0))(inputs(0))


def test_promote_dtype():
    """A function of one's own gets what Flax's layer gives it, and its dtypes are computed with."""
    seen = []

    def widen(args, *, dtype=None):
        seen.append([None if a is None else a.dtype for a in args])
        return tuple(None if a is None else a.astype(jnp.float32) for a in args)

    options = {"param_dtype": jnp.bfloat16, "promote_dtype": widen}
    x = inputs(8, dtype=jnp.bfloat16)
    for train in (True, False):
        (expected, *stats), (y, *new) = both(x, train, **options)
        assert y.dtype == expected.dtype == jnp.float32
        for a, b in zip((y, *new), (expected, *stats), strict=True):
            assert_close(a, b, 1e-4)
    assert len(seen) >= 4
    bfloat16, float32 = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    assert all(kinds == [bfloat16, float32, float32, bfloat16, bfloat16] for kinds in seen)


def test_half_precision_is_kept_as_it_came():
    """The backward pass keeps the input in bfloat16; Flax's layer would keep it in float32."""
    run, params, stats = pure(layer())
    x = inputs(64, dtype=jnp.bfloat16)
    _, pullback = jax.vjp(lambda x: run(params, stats, x)[0], x)
    kept = [leaf for leaf in jax.tree.leaves(pullback) if jnp.size(leaf) == x.size]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]
