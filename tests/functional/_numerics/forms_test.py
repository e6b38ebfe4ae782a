"""Forms of GPUs and TPUs, run on the CPU: the same numbers as the float64 reference has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from tests.functional.unitized_batch_norm_test import assert_matches_reference, problem
from unitnorm_jax.functional import BatchStats, unitized_batch_norm
from unitnorm_jax.functional._numerics import forms
from unitnorm_jax.functional._numerics.layout import Layout

UNITS = ("reference", "sample", "rms", "position", 0.3)


def cut(name, largest, **options):
    """The form's own options; the first as large as a small input allows."""

    def choose(x, layout):
        del x
        size = layout.counts[1 if name == "pieces" else 0]
        parts = next(k for k in range(largest, 0, -1) if size % k == 0)
        return {name: parts, **options}

    return choose


@pytest.fixture(autouse=True, scope="module", params=["one GPU", "GPUs", "TPU"])
def other_forms(request):
    """Have the CPU use the forms of others; samples and rows in parts on one GPU, else whole."""
    parts, devices = (4, 1) if request.param == "one GPU" else (1, 8)
    samples = forms.FORMS["samples"]["cuda"]._replace(cut=cut("pieces", parts, devices=devices))
    rows = forms.FORMS["rows"]["cuda"]._replace(cut=cut("blocks", 4, devices=devices))
    if request.param == "TPU":
        samples = samples._replace(cut=cut("pieces", 1, devices=1))
        rows = forms.FORMS["rows"]["tpu"]
    patch = pytest.MonkeyPatch()
    patch.setattr(forms, "FORMS", {"samples": {"cpu": samples}, "rows": {"cpu": rows}})
    jax.clear_caches()
    yield
    patch.undo()
    jax.clear_caches()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["", "large mean"])
@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (12, 5)], ids=["images", "rows"])
def test_values_and_gradients(shape, offset, unit):
    p = problem(shape, -1, offset)
    assert_matches_reference(p, 1e-5, 1e-5, unit=unit, use_running_average=False)


@pytest.mark.parametrize("unit", UNITS)
def test_masks_and_bessel(unit):
    p = problem((6, 4, 3, 5), -1, 0, mask=(6, 4, 3, 1))
    options = {"unit": unit, "bessel_correction": True, "use_running_average": False}
    assert_matches_reference(p, 1e-5, 1e-5, **options)


@pytest.mark.parametrize("shape", [(4, 4, 2, 3), (8, 3)], ids=["images", "rows"])
def test_derivatives_of_first_and_second_order(x64, shape):
    """Of the result and both statistics, forward and reverse."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = 2 + jax.random.normal(keys[0], shape, jnp.float64)
    parameters = [jax.random.normal(key, shape[-1:], jnp.float64) for key in keys[1:]]

    def layer(*values):
        x, alpha, scale, bias = map(jnp.asarray, values)  # check_grads gives numpy's
        stats = BatchStats(jnp.zeros_like(alpha), jnp.ones_like(alpha))
        return unitized_batch_norm(
            x, stats, alpha, scale, bias, use_running_average=False, unit="sample"
        )

    check_grads(layer, (x, *parameters), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e3], ids=["", "large mean"])
@pytest.mark.parametrize(
    ("shape", "masked"), [((16, 4, 2, 3), False), ((16, 4, 2, 3), True), ((64, 3), False)]
)
def test_devices_with_unequal_masks(shape, masked, offset):
    """Under ``shard_map`` with ``axis_name`` as on one device, gradients too."""
    keys = jax.random.split(jax.random.key(1), 3)
    x = offset + jax.random.normal(keys[0], shape)
    mask = jax.random.bernoulli(keys[1], 0.6, x.shape) if masked else jnp.ones(x.shape, bool)
    dy = jax.random.normal(keys[2], x.shape)
    stats, alpha = BatchStats(jnp.zeros(3), jnp.ones(3)), jnp.full(3, 0.7)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split, same = PartitionSpec("data"), PartitionSpec()

    def layer(x, mask, axis_name=None):
        return unitized_batch_norm(
            x,
            stats,
            alpha,
            mask=mask if masked else None,
            use_running_average=False,
            axis_name=axis_name,
        )

    def both(apply):
        y, vjp, stats = jax.vjp(lambda x: apply(x, mask), x, has_aux=True)
        return y, stats, vjp(dy)[0]

    mapped = jax.shard_map(
        lambda x, mask: layer(x, mask, "data"),
        mesh=mesh,
        in_specs=(split, split),
        out_specs=(split, same),
    )
    for one, other in zip(jax.tree.leaves(both(mapped)), jax.tree.leaves(both(layer)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_cuts_follow_the_part_of_a_device():
    """Eight GPUs of 32 images each cut as one with 32 does; a symbolic batch is not cut."""
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    gpu = {"images": forms._pieces, "rows": forms._blocks}

    def cuts(name, shape, sharding, dtype):
        found = []

        def look(x):
            layout = Layout(x.shape, (0,), (x.ndim - 1,))
            found.append(gpu[name](x, layout))
            return x

        jax.eval_shape(jax.jit(look), jax.ShapeDtypeStruct(shape, dtype, sharding=sharding))
        return found[0] and next(iter(found[0].values()))

    split = NamedSharding(mesh, PartitionSpec("data"))
    assert cuts("images", (32, 56, 56, 64), None, jnp.float32) == 16
    assert cuts("images", (256, 56, 56, 64), split, jnp.float32) == 16
    assert cuts("images", (32, 14, 14, 1024), None, jnp.bfloat16) == 2
    assert cuts("images", (32, 7, 7, 8), None, jnp.float32) == 1
    assert cuts("rows", (1024, 512), None, jnp.float32) == 16
    assert cuts("rows", (1024, 512), split, jnp.bfloat16) == 16
    assert cuts("rows", (100, 8), None, jnp.float32) == 1
    explicit = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Explicit,))
    split = NamedSharding(explicit, PartitionSpec("data"))
    assert cuts("rows", (1024, 512), split, jnp.bfloat16) is None
