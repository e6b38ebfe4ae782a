"""Compile a measurement once, for arrays placed in any way."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec


def compiled(function: Callable[..., Any], *, static: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`jax.jit` of a function whose operations know nothing of explicit mesh axes.

    On a mesh of explicit axes (`jax.make_mesh`'s default) JAX asks each operation for the
    placement of its result, and sorting or gathering along a sharded axis has none. Inside, the
    compiler places the arrays, as on a mesh of automatic axes; the results are replicated.

    Args:
        function: Takes arrays by position and hashable options by keyword.
        static: The names of the options.

    Returns:
        The function, compiled once for each set of shapes, dtypes, placements and options.
    """

    @functools.wraps(function)
    def placed(*arrays: Any, **options: Any) -> Any:
        mesh = _explicit_mesh(arrays)
        if mesh is None:
            return function(*arrays, **options)
        kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
        axes = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
        free = jax.sharding.auto_axes(
            functools.partial(function, **options), axes=axes, out_sharding=PartitionSpec()
        )
        with jax.sharding.use_abstract_mesh(mesh):  # Arrays may have one without `jax.set_mesh`.
            return free(*arrays)

    return jax.jit(placed, static_argnames=static)


def _explicit_mesh(arrays: Any) -> Any:
    """Return the mesh of the context, or else of the arrays, if an axis of it is explicit."""
    meshes = [jax.sharding.get_abstract_mesh()]
    if meshes[0].empty:
        meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(arrays)]
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
