"""Equi-normalization (ENorm): the network of least energy among those that compute the same.

The published code balances one unit after the other's old norms, a Jacobi sweep. So does this:
all groups at once, in no order. That it never raises the energy is derived here. An entry w
between a unit scaled by e and one scaled by d becomes w d / e, and by the inequality of the means

    |w d / e|^p <= (|w|^p d^2p + |w|^p e^-2p) / 2.

Summed over a unit's incoming weights the first term is half the p-th power of its outgoing norm,
over its outgoing weights the second half that of its incoming norm: together at most the old
energy. This holds for residual streams and for weights c^(-p depth) as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.contrib.enorm._groups import EnormGroup as EnormGroup
from unitnorm_jax.contrib.enorm._groups import (
    by_path,
    check_groups,
    check_options,
    layer_depths,
    p_norm,
    weight,
)
from unitnorm_jax.contrib.enorm._groups import enorm_chain as enorm_chain
from unitnorm_jax.functional._numerics.batch_norm import spread


class EnormFactors(NamedTuple):
    """What parameters and running statistics are multiplied by.

    Attributes:
        params: a tree like ``params``: for every leaf an array that broadcasts against it.
        batch_stats: a tree like ``batch_stats``, likewise.
    """

    params: Any
    batch_stats: Any


def enorm_factors(
    params: Any,
    groups: Sequence[EnormGroup],
    *,
    c: float | int = 1.0,
    p: float | int = 2,
    bias: str = "rescale",
    depths: Mapping[str, int] | None = None,
    batch_stats: Any = None,
) -> EnormFactors:
    r"""Return one cycle of equi-normalization on a tree of parameters.

    A ReLU network computes the same when the weights into a hidden unit are multiplied by d > 0
    and those out of it divided by d. The energy sum_k c^(-p k) \|W_k\|_p^p (k the depth of a
    layer) is least, as a function of the d of unit i alone, at ::

        d_i = sqrt(\|outgoing weights of i\|_p / (c \|incoming weights of i\|_p))

    A cycle scales all units by this at once. It never raises the energy; repeated, it converges
    to the one network of least energy, the same from wherever the scaling of the units began:
    there every outgoing norm is c times the incoming one. Between two updates of an optimizer
    one cycle is enough.

    With the factors f of this function the balanced network has the parameters
    ``enorm_rescale(params, f.params)`` and the statistics ``enorm_rescale(batch_stats,
    f.batch_stats)``. Gradients transform inversely to weights, so a momentum becomes
    ``enorm_rescale(momentum, f.params, -1)``, Adam's second moment ``enorm_rescale(nu, f.params,
    -2)``.

    The epsilon of a batch normalization in ``norms`` does not scale with its input, so there the
    function is kept but for a relative epsilon / (2 var) \|1 - 1/d^2\|; everywhere else to
    rounding.

    Args:
        params: nested dictionaries, as ``model.init`` returns them; kernels are (..., in, out).
        groups: the units to balance; ``enorm_chain`` makes those of a plain network.
        c: asymmetry: above 1 deeper layers get larger norms.
        p: the norm; kernels of convolutions count with all their entries.
        bias: "rescale" multiplies biases, and ``norms``, with their units, so that the network
            computes the same; "count" also has them in the incoming norm; "ignore" leaves both
            alone, as the published code does, which CHANGES the function of a network that has
            them.
        depths: depth of every layer named in groups, for c other than 1; by default that of a
            network without residual streams.
        batch_stats: running statistics; needed where groups have ``norms``.

    Returns:
        The factors. A unit whose incoming or outgoing weights are all zero keeps its scale.

    Raises:
        ValueError: an option is out of its range, a path matches no layer, or layers do not chain.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.enorm import enorm_chain, enorm_factors, enorm_rescale
        >>> params = {
        ...     "hidden": {"kernel": jnp.array([[4.0]]), "bias": jnp.array([2.0])},
        ...     "output": {"kernel": jnp.array([[1.0]]), "bias": jnp.array([3.0])},
        ... }
        >>> factors = enorm_factors(params, enorm_chain(("hidden", "output")))
        >>> balanced = enorm_rescale(params, factors.params)
        >>> [float(balanced[k]["kernel"][0, 0]) for k in ("hidden", "output")]
        [2.0, 2.0]
        >>> [float(balanced[k]["bias"][0]) for k in ("hidden", "output")]
        [1.0, 3.0]

    References:
        Pierre Stock, Benjamin Graham, Rémi Gribonval and Hervé Jégou, `Equi-normalization of Neural
        Networks <https://arxiv.org/abs/1902.10416>`_, ICLR 2019, and its code,
        facebookresearch/enorm. The rule for units, c and p are the paper's; that all groups are
        scaled at once, and a momentum buffer inversely, is the code's. Derived here: biases, norms,
        shared streams (forced by keeping the function), flattened images, the weights c^(-p depth)
        behind c, Adam, units without weights.
    """
    check_options(c, p, bias)
    leaves = by_path(params, "params")
    stats = by_path(batch_stats, "batch_stats")
    if bias == "ignore":
        groups = [group._replace(norms=()) for group in groups]
    widths = check_groups(groups, leaves, stats)
    depth = layer_depths(groups, depths, c)
    one = jnp.ones(())
    by_param, by_stat = dict.fromkeys(leaves, one), dict.fromkeys(stats, one)
    for group, width in zip(groups, widths, strict=True):
        d = _unit_scales(group, width, leaves, depth, c=float(c), p=p, bias=bias)
        for layer in group.incoming:
            path = weight(leaves, layer)
            by_param[path] = by_param[path] * spread(d, -1, leaves[path].ndim)
        for layer in (*group.outgoing, *group.flattened):
            path = weight(leaves, layer)
            positions = leaves[path].shape[-2] // width
            by_param[path] = by_param[path] / spread(jnp.tile(d, positions), -2, leaves[path].ndim)
        with_units = [f"{layer}/bias" for layer in (*group.incoming, *group.norms)]
        with_units += [f"{layer}/scale" for layer in group.norms]
        for path in with_units if bias != "ignore" else ():
            if path in leaves:
                by_param[path] = by_param[path] * d
        for layer in group.norms:
            by_stat[f"{layer}/mean"] = by_stat[f"{layer}/mean"] * d
            by_stat[f"{layer}/var"] = by_stat[f"{layer}/var"] * jnp.square(d)
    return EnormFactors(
        jax.tree.unflatten(jax.tree.structure(params), list(by_param.values())),
        jax.tree.unflatten(jax.tree.structure(batch_stats), list(by_stat.values())),
    )


def enorm_energy(
    params: Any,
    groups: Sequence[EnormGroup],
    *,
    c: float | int = 1.0,
    p: float | int = 2,
    bias: str = "rescale",
    depths: Mapping[str, int] | None = None,
) -> Float[Array, ""]:
    """Return the energy that ``enorm_factors`` lowers.

    ``E = sum over layers of c^(-p depth) sum |W|^p``.

    Args:
        params: see ``enorm_factors``, as the others; only layers named in groups count.
        groups: see there.
        c: see there.
        p: see there.
        bias: with "count", biases of layers that write balanced units count too.
        depths: see there.

    Returns:
        The energy, a scalar.

    Raises:
        ValueError: as ``enorm_factors``.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.enorm import enorm_chain, enorm_energy
        >>> params = {"a": {"kernel": jnp.array([[4.0]])}, "b": {"kernel": jnp.array([[1.0]])}}
        >>> float(enorm_energy(params, enorm_chain(("a", "b"))))
        17.0
    """
    check_options(c, p, bias)
    leaves = by_path(params, "params")
    check_groups([group._replace(norms=()) for group in groups], leaves, {})
    depth = layer_depths(groups, depths, c)
    writers = {layer for group in groups for layer in group.incoming}
    total = jnp.zeros(())
    for layer, k in depth.items():
        counted = [weight(leaves, layer)]
        if bias == "count" and layer in writers:
            counted += [path for path in [f"{layer}/bias"] if path in leaves]
        for path in counted:
            w = leaves[path].astype(jnp.promote_types(leaves[path].dtype, jnp.float32))
            total = total + float(c) ** (-p * k) * jnp.sum(jnp.abs(w) ** p)
    return total


def enorm_rescale(tree: Any, factors: Any, power: int = 1) -> Any:
    """Multiply every leaf by a power of its factor; dtypes stay.

    Args:
        tree: parameters, running statistics, or an optimizer's buffer like them.
        factors: of ``enorm_factors``, of the same structure.
        power: 1 for parameters and statistics, -1 for momentum, -2 for Adam's second moment.

    Returns:
        The rescaled tree.

    Raises:
        ValueError: the trees differ in structure.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.enorm import enorm_rescale
        >>> enorm_rescale({"a": jnp.array(3.0)}, {"a": jnp.array(2.0)}, power=-1)["a"].item()
        1.5
    """
    given, expected = (cast(Any, jax.tree.structure(t)) for t in (tree, factors))
    if given != expected:
        raise ValueError(f"`tree` must have the structure of `factors`: {given} is not {expected}.")
    return jax.tree.map(lambda x, f: (x * f**power).astype(x.dtype), tree, factors)


def _unit_scales(
    group: EnormGroup,
    width: int,
    leaves: Mapping[str, jax.Array],
    depth: Mapping[str, int],
    *,
    c: float,
    p: float | int,
    bias: str,
) -> jax.Array:
    """``sqrt(outgoing norm / incoming norm)`` of every unit, 1 where either is zero."""
    least = min(depth[layer] for layer in group.incoming)  # only ratios matter: no underflow

    def unit_norms(array: jax.Array, layer: str) -> jax.Array:
        axes = tuple(range(array.ndim - 1))  # (..., units) -> (units,)
        return c ** (least - depth[layer]) * p_norm(array, axes, p)

    incoming, outgoing = [], []
    for layer in group.incoming:
        incoming.append(unit_norms(leaves[weight(leaves, layer)], layer))
        if bias == "count" and f"{layer}/bias" in leaves:
            incoming.append(unit_norms(leaves[f"{layer}/bias"], layer))
    for layer in (*group.outgoing, *group.flattened):
        kernel = jnp.swapaxes(leaves[weight(leaves, layer)], -1, -2)
        outgoing.append(unit_norms(kernel.reshape(-1, width), layer))
    total_in, total_out = (p_norm(jnp.stack(norms), 0, p) for norms in (incoming, outgoing))
    dead = (total_in == 0) | (total_out == 0)  # compared by ==, for NaN to stay
    return jnp.where(dead, 1, jnp.sqrt(total_out) / jnp.sqrt(jnp.where(dead, 1, total_in)))
