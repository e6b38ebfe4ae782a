"""Which form of the layer runs where: one table, and the measurement that decided each row.

All forms compute the small matrices of ``_numerics``; they differ in how long sums are taken, and
in what the compiler is kept from storing.

=======  =============================  ===========  ===============================================
backend  input                          form         bytes, time / nn.BatchNorm, both passes
=======  =============================  ===========  ===============================================
cuda     samples with positions, masks  by_piece     bench gpu, chain: .83, .78 (by_sample: 1.07,
                                                     1.30)
cuda     rows                           by_block     bench gpu, 1024x512 float32: .85, .38 (by_row:
                                                     1.73, 1.60); bfloat16: .67, .24 (1.63, .71)
tpu      rows                           by_block,    bench tpu, 4096x1024, bytes: 1.26 in float32,
                                        apart        1.10 in bfloat16 (by_row: 1.39, 1.27)
cpu      samples, 2^16 values           by_sample,   bench layer: time .79 in float32, .49 in
                                        slabs        bfloat16, of images
cpu      rows, 2^16 values              by_row,      bench layer: 1.24 in float32, .96 in bfloat16
                                        slabs
others   samples                        by_sample    bench tpu, v5e: bytes 1.01
others   rows                           by_row
=======  =============================  ===========  ===============================================

rows: one position a sample and no mask, as dense inputs have, and unit="position". A backend's form
is a row of ``FORMS``: the table is read when the program is lowered, not when it is traced, so that
a program may be compiled for a machine that is not there. (Slabs: ``folded_sums``.)
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import Reduction
from unitnorm_jax.functional._numerics.by_block import normalize_by_block
from unitnorm_jax.functional._numerics.by_piece import normalize_by_piece
from unitnorm_jax.functional._numerics.by_row import normalize_by_row
from unitnorm_jax.functional._numerics.by_sample import normalize_by_sample
from unitnorm_jax.functional._numerics.layout import Layout
from unitnorm_jax.functional._numerics.norms import unit_weight

# Blocks that fill a GPU of 132 multiprocessors, each with the channels of 256 bytes of x.
_GPU_BLOCKS = 500
_LEAST_PIECE = 49  # positions
# Of 4, 8, 16, 32 the best for 1024x512 and 4096x1024, float32 and bfloat16; of 256x2048 it is 4.
_ROW_BLOCKS = 16
_LEAST_BLOCK = 64  # rows


class Form(NamedTuple):
    """A form of one backend.

    Attributes:
        normalize: ``normalize_by_sample`` or ``normalize_by_row`` in other words.
        cut: ``cut(x, layout)`` returns the form's own options; None: not for this input.
    """

    normalize: Callable[..., Any]
    cut: Callable[[jax.Array, Layout], dict[str, int] | None]


def _pieces(x: jax.Array, layout: Layout) -> dict[str, int] | None:
    """Return the fewest pieces of a sample that fill the GPU."""
    samples, positions, channels = layout.counts
    devices = _devices(x, layout)
    if devices is None:
        return None
    width = 128 if x.dtype.itemsize == 2 else 64
    blocks = -(-samples // devices) * -(-channels // width)
    cuts = [k for k in range(1, positions + 1) if positions % k == 0]
    cuts = [k for k in cuts if positions // k >= _LEAST_PIECE] or [1]
    pieces = next((k for k in cuts if k * blocks >= _GPU_BLOCKS), cuts[-1])
    return {"pieces": pieces, "devices": devices}


def _blocks(x: jax.Array, layout: Layout) -> dict[str, int] | None:
    """Return the number of blocks of rows: as many on every device."""
    devices = _devices(x, layout)
    rows = layout.counts[0]
    if devices is None:
        return None
    parts = devices if rows % devices == 0 else 1
    most = max(min(_ROW_BLOCKS, rows // parts // _LEAST_BLOCK), 1)
    blocks = parts * next(k for k in range(most, 0, -1) if rows // parts % k == 0)
    return {"blocks": blocks, "devices": devices}


def _apart(x: jax.Array, layout: Layout) -> dict[str, int] | None:
    """Return one block, whose sums are taken apart."""
    known = _devices(x, layout) is not None
    return {"blocks": 1, "devices": 1, "apart": True} if known else None


FORMS: dict[str, dict[str, Form]] = {
    "samples": {"cuda": Form(normalize_by_piece, _pieces)},
    "rows": {"cuda": Form(normalize_by_block, _blocks), "tpu": Form(normalize_by_block, _apart)},
}


def _devices(x: jax.Array, layout: Layout) -> int | None:
    """Return over how many devices jit may spread x; None where sizes or layouts are not free."""
    mesh = jax.typeof(x).sharding.mesh
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    symbolic = not all(isinstance(size, int) for size in layout.shape)
    if symbolic or jax.sharding.AxisType.Explicit in types.values():  # a sharded axis stays one
        return None
    auto = (name for name, kind in types.items() if kind == jax.sharding.AxisType.Auto)
    return math.prod(mesh.shape[name] for name in auto)


def normalize(
    x: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    layout: Layout,
    unit: str | float,
    reduction: Reduction,
    dtype: Any,
    epsilon: jax.Array | float,
    **options: Any,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Return ``normalize_by_sample``'s results, in the form of the backend at hand."""
    rows, positions, channels = layout.counts
    options["reduction"] = reduction
    usual: Callable[..., Any]
    arrays: tuple[Any, ...]
    if mask is not None or positions != 1:
        forms = FORMS["samples"]
        usual = normalize_by_sample
        arrays = x, mask, scale, bias, alpha
        options |= {"layout": layout, "unit": unit, "dtype": dtype}
    else:
        forms = FORMS["rows"]
        usual = normalize_by_row
        arrays = x.reshape(rows, channels), scale, bias, alpha
        options["kappa"] = unit_weight(unit, 1.0, channels)
    cuts = {backend: form.cut(x, layout) for backend, form in forms.items() if _installed(backend)}
    special = {
        backend: (forms[backend].normalize, tuple(cut.items()))
        for backend, cut in cuts.items()
        if cut is not None
    }
    branches = tuple(({"default": (usual, ())} | special).items())
    y, mean, var, count = _by_backend(branches, tuple(options.items()), epsilon, *arrays)
    if mask is None:  # a number, where it is one
        count = reduction.values((rows, positions), alpha.dtype)
    return jnp.reshape(y, x.shape), mean, var, count


@functools.cache
def _installed(backend: str) -> bool:
    """Return whether programs may be compiled for a backend; others are not traced.

    Exported for it nevertheless, the layer has the form of ``others``.
    """
    if backend == "cpu":
        return True
    if backend == "tpu":
        return importlib.util.find_spec("libtpu") is not None
    return any(backend in plugin.name for plugin in metadata.entry_points(group="jax_plugins"))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _by_backend(branches: Any, options: Any, epsilon: Any, *arrays: Any) -> Any:
    """Call the branch of the backend; jitted, so that an eager gradient compiles it once."""
    functions = {
        backend: functools.partial(function, epsilon=epsilon, **dict(options), **dict(cut))
        for backend, (function, cut) in branches
    }
    if len(functions) == 1:
        return functions["default"](*arrays)
    return lax.platform_dependent(*arrays, **functions)
