"""Which parameters a scaling of hidden units touches: groups of layers, resolved and checked."""

import graphlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unitnorm_jax.functional._numerics.arguments import is_within

_LEAST = 5e-324  # the least positive number
BIAS = ("rescale", "count", "ignore")


class EnormGroup(NamedTuple):
    """Hidden units, and the layers around them that one scaling vector must touch together.

    Whatever adds up in one tensor has one scale: all layers that write to a residual stream, and
    all that read from it, are one group. Layers are named by their path in ``params``, joined
    with "/", such as ``"block_0/conv_1"``.

    Attributes:
        incoming: the layers that write the units: Dense or Conv, or the ``scale`` of a
            normalization whose output the units are.
        outgoing: the Dense or Conv layers that read them.
        norms: batch normalizations between the two, made transparent: their scale, bias and running
            statistics are rescaled with the units.
        flattened: Dense layers that read the units of an image flattened from (height, width,
            channels): each unit has one row of the kernel per position.
    """

    incoming: tuple[str, ...]
    outgoing: tuple[str, ...]
    norms: tuple[str, ...] = ()
    flattened: tuple[str, ...] = ()


def enorm_chain(
    layers: Sequence[str], norms: Sequence[str | None] | None = None
) -> tuple[EnormGroup, ...]:
    """Return the groups of a network without branches: the units between neighbours.

    Args:
        layers: paths of its Dense and Conv layers, from input to output. The published code does
            not balance the last pair; leave the last layer out for that.
        norms: for each two neighbours the batch normalization between them, or None.

    Returns:
        One group fewer than layers.

    Raises:
        ValueError: there are not as many norms as pairs of layers.

    Example:
        >>> from unitnorm_jax.contrib.enorm import enorm_chain
        >>> enorm_chain(("Dense_0", "Dense_1", "Dense_2"))[1]
        EnormGroup(incoming=('Dense_1',), outgoing=('Dense_2',), norms=(), flattened=())
    """
    pairs = list(itertools.pairwise(layers))
    between = [None] * len(pairs) if norms is None else list(norms)
    if len(between) != len(pairs):
        raise ValueError(
            f"`norms` has {len(between)} entries, but must have one (or None) between each two of "
            f"the {len(layers)} layers: {len(pairs)}."
        )
    return tuple(
        EnormGroup((a,), (b,), () if norm is None else (norm,))
        for (a, b), norm in zip(pairs, between, strict=True)
    )


def check_options(c: float | int, p: float | int, bias: str) -> None:
    """Raise unless c and p are positive and ``bias`` is known."""
    if not is_within(c, _LEAST):
        raise ValueError(
            f"`c` (={c!r}) must be positive and finite: after balancing, the outgoing norm of a "
            "unit is c times its incoming norm; 1 is symmetric."
        )
    if not is_within(p, _LEAST):
        raise ValueError(
            f"`p` (={p!r}) must be positive and finite: the energy is the sum of |weight|^p; 2 is "
            "that of weight decay."
        )
    if bias not in BIAS:
        raise ValueError(f"`bias` (={bias!r}) must be one of {', '.join(map(repr, BIAS))}.")


def by_path(tree: Any, what: str) -> dict[str, jax.Array]:
    """Return the leaves by path, joined with "/"."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not all(isinstance(key, jax.tree_util.DictKey) for key in path):
            raise ValueError(
                f"`{what}` must be nested dictionaries of arrays; at {jax.tree_util.keystr(path)} "
                "it is not. Give the collection that `model.init` returned."
            )
        leaves["/".join(str(key.key) for key in path)] = jnp.asarray(leaf)
    return leaves


def weight(leaves: Mapping[str, jax.Array], layer: str) -> str:
    """Path of a layer's weight: its kernel or, of a normalization, its scale."""
    paths = [f"{layer}/{name}" for name in ("kernel", "scale")]
    found = [path for path in paths if path in leaves]
    if not found:
        known = sorted({path.rpartition("/")[0] for path in leaves if path.endswith("/kernel")})
        raise ValueError(
            f"layer (={layer!r}) has no `kernel` (nor `scale`) in `params`; layers with a `kernel` "
            f"are {', '.join(known) or 'none'}."
        )
    return found[0]


def check_groups(
    groups: Sequence[EnormGroup], leaves: Mapping[str, jax.Array], stats: Mapping[str, jax.Array]
) -> tuple[int, ...]:
    """Return the number of units of each group, or raise where layers do not fit together."""
    for field in ("incoming", "outgoing", "norms"):
        seen: dict[str, int] = {}
        for index, group in enumerate(groups):
            layers = getattr(group, field)
            layers += group.flattened if field == "outgoing" else ()
            if not layers and field != "norms":
                raise ValueError(
                    f"`{field}` of group {index} must name at least one layer: without one there "
                    "is nothing to balance. Leave the group out."
                )
            for layer in layers:
                if layer in seen:
                    raise ValueError(
                        f"layer (={layer!r}) is in `{field}` of group {seen[layer]} and of group "
                        f"{index}, but must be in one: layers that write to or read from the same "
                        "units share a group."
                    )
                seen[layer] = index
    return tuple(_width(index, group, leaves, stats) for index, group in enumerate(groups))


def _width(
    index: int,
    group: EnormGroup,
    leaves: Mapping[str, jax.Array],
    stats: Mapping[str, jax.Array],
) -> int:
    written = {layer: leaves[weight(leaves, layer)].shape[-1] for layer in group.incoming}
    width = written[group.incoming[0]]

    def fail(layer: str, units: str) -> None:
        raise ValueError(
            f"group {index} does not chain: {group.incoming[0]!r} writes {width} units, but "
            f"{layer!r} {units}. A Dense after a flattened image goes into `flattened`; grouped "
            "convolutions cannot be balanced."
        )

    for layer, units in written.items():
        if units != width:
            fail(layer, f"writes {units}")
    for layer in (*group.outgoing, *group.flattened):
        kernel = leaves[weight(leaves, layer)]
        if kernel.ndim < 2:
            raise ValueError(
                f"layer (={layer!r}) of group {index} reads units, so it must have a `kernel`, not "
                "a `scale` alone; a normalization between the layers goes into `norms`."
            )
        units = kernel.shape[-2]
        if layer in group.flattened:
            if kernel.ndim != 2 or units % width:
                fail(layer, f"has a kernel of shape {kernel.shape}, not (positions * {width}, ...)")
        elif units != width:
            fail(layer, f"reads {units}")
    for layer in group.norms:
        _check_norm(index, layer, width, leaves, stats)
    return width


def _check_norm(
    index: int,
    layer: str,
    width: int,
    leaves: Mapping[str, jax.Array],
    stats: Mapping[str, jax.Array],
) -> None:
    for name in ("mean", "var"):
        if f"{layer}/{name}" not in stats:
            raise ValueError(
                f"norm (={layer!r}) of group {index} has no running `{name}` in `batch_stats`. "
                "Give it; or, as only a batch normalization undoes the scaling of single units, "
                "end the group at another norm: name that in `incoming` of the units it writes."
            )
    if f"{layer}/scale" not in leaves:
        raise ValueError(
            f"norm (={layer!r}) of group {index} has no `scale` in `params`, so its output cannot "
            "be rescaled. Build it with use_scale=True, or leave the group out."
        )
    if leaves[f"{layer}/scale"].shape != (width,):
        raise ValueError(
            f"norm (={layer!r}) of group {index} has a `scale` of shape "
            f"{leaves[f'{layer}/scale'].shape}; it must have one value for each of the {width} "
            "units."
        )


def layer_depths(
    groups: Sequence[EnormGroup], depths: Mapping[str, int] | None, c: float | int
) -> dict[str, int]:
    """Depth of every layer: as given, or the number of layers on the longest way to it."""
    names = [layer for g in groups for layer in (*g.incoming, *g.outgoing, *g.flattened)]
    if depths is not None:
        missing = [layer for layer in names if layer not in depths]
        if missing:
            raise ValueError(
                f"`depths` has no entry for layer (={missing[0]!r}); give one for every layer that "
                "the groups name."
            )
        return {layer: depths[layer] for layer in names}
    if c == 1:
        return dict.fromkeys(names, 0)
    before: dict[str, set[str]] = {layer: set() for layer in names}
    for group in groups:
        for layer in (*group.outgoing, *group.flattened):
            before[layer] |= set(group.incoming)
    found: dict[str, int] = {}
    try:
        for layer in graphlib.TopologicalSorter(before).static_order():
            found[layer] = 1 + max((found[other] for other in before[layer]), default=-1)
    except graphlib.CycleError:
        raise ValueError(
            f"`c` (={c}) scales layers by their depth, which the groups of a residual network do "
            "not tell (layers read the stream that they write to). Give `depths`, a depth for "
            "every layer, or use c = 1."
        ) from None
    return found


def p_norm(values: jax.Array, axis: int | tuple[int, ...], p: float | int) -> jax.Array:
    """``(sum |values|^p)^(1/p)`` over ``axis``, without overflow, in at least float32."""
    values = jnp.abs(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
    largest = jnp.max(values, axis, keepdims=True)
    ratio = values / jnp.where(largest > 0, largest, 1)
    return jnp.squeeze(largest, axis) * jnp.sum(ratio**p, axis) ** (1 / p)
