"""Snapshots: copies that stay when the original is donated, placed as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from unitnorm_jax import ics
from unitnorm_jax.ics.probe._devices import pack


def tree():
    mesh = jax.make_mesh((8,), ("batch",))
    sharded = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("batch",))]
    x = np.arange(16.0, dtype=np.float32)
    one, other = (SingleDeviceSharding(device) for device in jax.devices()[:2])
    return {
        "one device": {"a": jnp.array(x), "b": jnp.array(2 * x)},
        "committed": jax.device_put({"a": x, "b": 2 * x}, other),
        "a mesh": {"a": jax.device_put(x, sharded[0]), "b": jax.device_put(2 * x, sharded[1])},
        "two devices": {"a": jax.device_put(x, one), "b": jax.device_put(2 * x, other)},
        "numpy": {"a": x, "b": jnp.array(2 * x)},
        "two dtypes": {"a": jnp.array(x), "b": [jnp.arange(6).reshape(2, 3), jnp.array(3.0)]},
        "a key": {"a": jax.random.key(0), "b": jnp.array(x)},
        "empty": {},
    }


def numbers(given):
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, given)


@pytest.mark.parametrize("keep", [ics.snapshot, pack])
@pytest.mark.parametrize("case", tree())
def test_snapshot(case, keep):
    given = tree()[case]
    expected = jax.tree.map(np.array, numbers(given))
    kept = keep(given)
    packed = case in ("one device", "committed", "two dtypes") and keep is pack
    assert isinstance(kept, ics.Packed) == packed
    kept = ics.unpack(kept)
    for x, y in zip(jax.tree.leaves(given), jax.tree.leaves(kept), strict=True):
        if isinstance(x, jax.Array):
            assert y.sharding.is_equivalent_to(x.sharding, x.ndim)
            assert y.committed == x.committed
            x.delete()
        else:
            x[:] = 0
    jax.tree.map(np.testing.assert_array_equal, numbers(kept), expected)
