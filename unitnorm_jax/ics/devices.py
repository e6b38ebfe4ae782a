"""Copies and placements of arrays: what donation and sharding ask of a probe."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def snapshot(variables: Any) -> Any:
    """A copy of every array on its own devices, which survives the donation of the original.

    Args:
      variables: Any pytree of arrays.

    Returns:
      The same tree of new arrays, sharded as they were.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.ones(3)
      >>> y = snapshot(x)
      >>> x.delete()
      >>> float(y.sum())
      3.0
    """
    leaves, tree = jax.tree.flatten(variables)
    if all(isinstance(x, jax.Array) for x in leaves):
        # One call for all of them: five times faster than one for each of some tens.
        shardings = tuple(x.sharding for x in leaves)
        if len({frozenset(sharding.device_set) for sharding in set(shardings)}) == 1:
            return jax.tree.unflatten(tree, _copy(shardings)(leaves))
    return jax.tree.map(lambda x: jnp.array(x, copy=True), variables)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A `snapshot` in one array per dtype, by `pack`; `ICSProbe` takes it as it is.

    Attributes:
      arrays: The leaves end to end, flat, by dtype.
      tree: Their structure.
      shapes: Of each leaf: which of `arrays` it lies in, and its shape.
    """

    arrays: tuple[jax.Array, ...]
    tree: Any = dataclasses.field(metadata={"static": True})
    shapes: tuple[tuple[int, tuple[int, ...]], ...] = dataclasses.field(metadata={"static": True})

    def unpack(self) -> Any:
        """The tree of arrays."""
        leaves, starts = [], [0] * len(self.arrays)
        for place, shape in self.shapes:
            stop = starts[place] + math.prod(shape)
            leaves.append(self.arrays[place][starts[place] : stop].reshape(shape))
            starts[place] = stop
        return jax.tree.unflatten(self.tree, leaves)


def pack(variables: Any) -> Any:
    """A copy of every array, as `snapshot` makes, but in one piece, which takes less time.

    To make an array takes longer than to copy a small one, and so does handing it to a function.

    Args:
      variables: Any pytree of arrays.

    Returns:
      `Packed`; a `snapshot` where the arrays are not numbers on one device.

    Example:
      >>> import jax.numpy as jnp
      >>> pack({"a": jnp.ones(3), "b": jnp.zeros((2, 2))}).unpack()["a"]
      Array([1., 1., 1.], dtype=float32)
    """
    leaves, tree = jax.tree.flatten(variables)
    if not leaves or not all(isinstance(x, jax.Array) for x in leaves):
        return snapshot(variables)
    devices = {device for x in leaves for device in x.sharding.device_set}
    if len(devices) > 1 or any(jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) for x in leaves):
        return snapshot(variables)
    dtypes = list(dict.fromkeys(x.dtype for x in leaves))
    shapes = tuple((dtypes.index(x.dtype), x.shape) for x in leaves)
    return Packed(_end_to_end(leaves), tree, shapes)


def unpacked(variables: Any) -> Any:
    """The tree of arrays of what `pack` returned, or of variables that are no such thing."""
    return _unpack(variables) if isinstance(variables, Packed) else variables


@jax.jit  # One call, not one for each array.
def _unpack(packed: Packed) -> Any:
    return packed.unpack()


@jax.jit
def _end_to_end(leaves: list[jax.Array]) -> tuple[jax.Array, ...]:
    kinds: dict[Any, list[jax.Array]] = {}
    for x in leaves:
        kinds.setdefault(x.dtype, []).append(x.reshape(-1))
    return tuple(jnp.concatenate(kind) for kind in kinds.values())


@functools.lru_cache(maxsize=64)
def _copy(shardings: tuple[Any, ...]) -> Any:
    def copy(leaves: list[jax.Array]) -> list[jax.Array]:
        return [jnp.copy(x) for x in leaves]

    if not any(isinstance(sharding, NamedSharding) for sharding in shardings):
        return jax.jit(copy)
    return jax.jit(copy, out_shardings=list(shardings))


def automatic(tree: Any) -> Any:
    """Arrays on a mesh of explicit axes as they lie, but typed for the compiler to place.

    Models are not written for explicit axes, and a gather is no operation on them.
    """

    shardings = [getattr(x, "sharding", None) for x in jax.tree.leaves(tree)]
    if not any(isinstance(sharding, NamedSharding) for sharding in shardings):
        return tree

    def convert(x: Any) -> Any:
        sharding = getattr(x, "sharding", None)
        if not isinstance(sharding, NamedSharding) or isinstance(x, jax.core.Tracer):
            return x
        mesh = sharding.mesh
        if not isinstance(mesh, Mesh) or set(mesh.axis_types) == {AxisType.Auto}:
            return x
        return jax.device_put(x, NamedSharding(Mesh(mesh.devices, mesh.axis_names), sharding.spec))

    return jax.tree.map(convert, tree)


def replicated(arrays: list[jax.Array]) -> NamedSharding | None:
    """Every device of the mesh that the arrays are sharded over; None on a single device."""
    for array in arrays:
        if isinstance(array.sharding, NamedSharding) and array.sharding.mesh.size > 1:
            return NamedSharding(array.sharding.mesh, PartitionSpec())
    return None
