"""Copies and placements of arrays: what donation and sharding ask of a probe."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def snapshot(variables: Any) -> Any:
    """Return a copy of every array on its own devices, which survives the donation of the original.

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
        """Return the tree of arrays."""
        leaves, starts = [], [0] * len(self.arrays)
        for place, shape in self.shapes:
            stop = starts[place] + math.prod(shape)
            leaves.append(self.arrays[place][starts[place] : stop].reshape(shape))
            starts[place] = stop
        return jax.tree.unflatten(self.tree, leaves)


def pack(variables: Any) -> Any:
    """Return a copy of every array, as `snapshot` makes, but in one piece, which takes less time.

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


def unpack(variables: Any) -> Any:
    """Return the tree of arrays of what `pack` returned, or of variables that are no such thing."""
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


def placed_by_compiler(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, where arrays on a mesh of explicit axes are typed for the compiler to place.

    Models are not written for explicit axes, and a gather is no operation on them. Arrays stay
    where they are; the results are on every device of the mesh.
    """
    context = jax.sharding.get_abstract_mesh()
    meshes = [mesh for mesh in map(_mesh, jax.tree.leaves(args)) if mesh is not None]
    explicit = [mesh for mesh in (context, *meshes) if _is_explicit(mesh)]
    if not explicit:
        return f(*args)
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)) and not _tracing():
        mesh = jax.sharding.get_mesh()
        with jax.set_mesh(_automatic_mesh(mesh)) if _is_explicit(mesh) else nullcontext():
            results = f(*map(_automatic, args))
        typed = {_automatic_mesh(m): m for m in (mesh, *meshes) if _is_explicit(m)}

        def back(x: jax.Array) -> jax.Array:
            sharding, given = x.sharding, typed.get(_mesh(x))
            if given is None or not isinstance(sharding, NamedSharding):
                return x
            return jax.device_put(x, NamedSharding(given, sharding.spec))

        return jax.tree.map(back, results)
    # In a function that is traced, its types must change within the same mesh.
    with jax.sharding.use_abstract_mesh(getattr(explicit[0], "abstract_mesh", explicit[0])):
        return jax.sharding.auto_axes(f, out_sharding=PartitionSpec())(*args)


def _tracing() -> bool:
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def _mesh(x: Any) -> Any:
    sharding = (
        jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None)
    )
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def _is_explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types


def _automatic(tree: Any) -> Any:
    def convert(x: Any) -> Any:
        mesh = _mesh(x)
        if mesh is None or not _is_explicit(mesh):
            return x
        return jax.device_put(x, NamedSharding(_automatic_mesh(mesh), x.sharding.spec))

    return jax.tree.map(convert, tree)


def _automatic_mesh(mesh: Any) -> Mesh:
    return Mesh(mesh.devices, mesh.axis_names)


def replicated(arrays: Sequence[Any]) -> NamedSharding | None:
    """Return every device of the mesh that the arrays are sharded over; None on a single device."""
    for array in arrays:
        if isinstance(array, jax.core.Tracer):
            continue
        sharding = getattr(array, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return NamedSharding(_automatic_mesh(sharding.mesh), PartitionSpec())
    return None
