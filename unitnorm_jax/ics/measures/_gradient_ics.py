"""How far the gradient of each layer moves when the layers before it are updated."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class GradientICS(NamedTuple):
    """Change of the gradient of each layer's parameters, in the order of the layers."""

    distance: Float[Array, " layers"]
    """``|G_i - G'_i|_2``; 0 for the first layer, which has none before it."""
    cosine: Float[Array, " layers"]
    """Of the angle between G_i and G'_i; 1 where both are 0, 0 where one of them is."""
    norm: Float[Array, " layers"]
    """``|G_i|_2``, the unit to read the distance in."""


def gradient_ics(
    loss: Callable[..., Any],
    params: Any,
    updated: Any = None,
    *,
    layers: Sequence[str],
    args: tuple[Any, ...] = (),
    optimizer: Any = None,
    opt_state: Any = None,
) -> GradientICS:
    """Return how far the updates of earlier layers move the gradient of each layer.

    With W_i the parameters of layer i, W its whole list before and W' after the update::

        G_i  = gradient of L(W_1, ..., W_k)                       with respect to W_i
        G'_i = gradient of L(W'_1, ..., W'_{i-1}, W_i, ..., W_k)  with respect to W_i

    the same batch in both. It is small where a layer could have been updated before the others or
    after them.

    It costs one backward pass per layer. They run one after another: as calls of one compiled
    function or, where this is called under jit, as one program with a loop. (In a loop XLA's CPU
    compiler has gradients of convolutions 30 times slower: on CPUs do not jit this.) The function
    is compiled at every call or, if `args` are given, once for a loss: it must then read nothing
    else that changes.

    Args:
        loss: ``loss(params, *args)`` returns a number.
        params: Parameters before the update, a pytree.
        updated: The same after it. Default: what one step of the optimizer makes of them.
        layers: Paths of the layers in the order in which the model calls them, joined with "/"
            ("block_0/conv"). A parameter belongs to the longest of them that its path starts with.
        args: Further arguments of the loss: arrays, or trees of them. Bind anything else, such as
            a flag, by ``functools.partial``.
        optimizer: Has ``init`` and ``update``, as optax's do.
        opt_state: Its state. Default: ``optimizer.init(params)``.

    Returns:
        Three numbers per layer.

    Raises:
        ValueError: If a parameter belongs to no layer or a layer has no parameter, neither the
            updated parameters nor an optimizer is given, the updated parameters are not like
            `params` in structure, shapes and dtypes, or `args` has what is no array.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
        >>> loss = lambda p: p["a"] * p["b"]  # G_b = a
        >>> gradient_ics(loss, params, {"a": jnp.array(5.0), "b": jnp.array(0.0)},
        ...     layers=("a", "b")).distance
        Array([0., 3.], dtype=float32)

    References:
        S. Santurkar, D. Tsipras, A. Ilyas, A. Madry, How does batch normalization help
        optimization?, NeurIPS 2018 (arXiv 1805.11604), definition 2.1.
    """
    owner = owners(params, layers)
    _check_arrays(args)
    if args:
        gradient_of: Any = functools.partial(_jitted_gradient, loss)
        sums_of: Any = functools.partial(_jitted_sums, loss, owner)
    else:  # new functions: nothing that the loss reads is taken from an earlier call
        gradient_of = jax.jit(functools.partial(gradient, loss))
        sums_of = jax.jit(functools.partial(layer_sums, loss, owner))
    now = gradient_of(params, args)
    if updated is None:
        if optimizer is None:
            raise ValueError(
                "`updated` and `optimizer` are both None; give the parameters after the update, or "
                "an optimizer with `init` and `update` to make it."
            )
        state = optimizer.init(params) if opt_state is None else opt_state
        step, _ = optimizer.update(now, state, params)
        updated = jax.tree.map(lambda p, s: p + s.astype(p.dtype), params, step)
    _check_alike(params, updated)
    one = functools.partial(sums_of, params, updated, now, args)
    return over_layers(one, len(layers), (now, updated))


def _check_arrays(args: tuple[Any, ...]) -> None:
    arrays = jax.Array | np.ndarray | np.generic | int | float | complex
    for leaf in jax.tree.leaves(args):
        if isinstance(leaf, bool) or not isinstance(leaf, arrays):
            raise ValueError(
                f"`args` must be arrays, but has {leaf!r}; bind what is no array to the loss: "
                "functools.partial(loss, flag=True)."
            )


def _check_alike(params: Any, updated: Any) -> None:
    structure: Any = jax.tree.structure(params)
    given: Any = jax.tree.structure(updated)
    if given != structure:
        raise ValueError(
            f"`updated` must have the structure of `params`, but is {given} where they are "
            f"{structure}; give the same model's parameters."
        )
    old = jax.tree.leaves_with_path(params)
    for (path, before), after in zip(old, jax.tree.leaves(updated), strict=True):
        was, now = (f"{jnp.result_type(z)}{list(jnp.shape(z))}" for z in (before, after))
        if was != now:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"`updated` must have the shapes and dtypes of `params`, but {name!r} is {now} "
                f"where it was {was}; give the same model's parameters."
            )


def over_layers(one: Callable[[Any], jax.Array], layers: int, arrays: Any) -> GradientICS:
    """Return the result from ``layer_sums`` of each layer, ``one(i)``.

    ``arrays``: what they are made of; where it is traced, the layers are a loop.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays)):
        return _shift_of(jax.lax.map(one, jnp.arange(layers)))
    return _shift_of(jnp.stack([one(i) for i in np.arange(layers)]))


def gradient(loss: Callable[..., Any], params: Any, args: tuple[Any, ...] = ()) -> Any:
    """Return the gradient of all parameters."""
    return jax.grad(lambda p: jnp.asarray(loss(p, *args)))(params)


def layer_sums(
    loss: Callable[..., Any],
    owner: Sequence[int],
    before: Any,
    after: Any,
    now: Any,
    args: tuple[Any, ...],
    i: jax.Array,
) -> jax.Array:
    """Return |G_i - G'_i|^2, G_i G'_i, |G_i|^2 and |G'_i|^2 of one layer.

    Args:
        loss: See `gradient_ics`.
        owner: The layer of each parameter.
        before: Parameters before the update.
        after: Those after it.
        now: The gradient before it.
        args: See `gradient_ics`.
        i: The layer, an integer that may be traced.
    """
    leaves, structure = jax.tree.flatten(before)
    pairs = zip(owner, leaves, jax.tree.leaves(after), strict=True)
    mixed = [jnp.where(o < i, new, old) for o, old, new in pairs]
    moved = gradient(loss, jax.tree.unflatten(structure, mixed), args)
    sums = [
        jnp.where(o == i, jnp.stack(_products(g, h)), 0)
        for o, g, h in zip(owner, jax.tree.leaves(now), jax.tree.leaves(moved), strict=True)
    ]
    return jnp.stack(sums).sum(0)


_jitted_gradient = jax.jit(gradient, static_argnums=0)
_jitted_sums = jax.jit(layer_sums, static_argnums=(0, 1))


def _shift_of(sums: jax.Array) -> GradientICS:
    off, dot, norm, moved_norm = sums.T
    norm, moved_norm = jnp.sqrt(norm), jnp.sqrt(moved_norm)
    size = norm * moved_norm
    both_zero = (norm == 0) & (moved_norm == 0)
    cosine = jnp.where(size > 0, dot / jnp.where(size > 0, size, 1), jnp.where(both_zero, 1.0, 0.0))
    cosine = jnp.where(jnp.isnan(size), jnp.nan, cosine)
    return GradientICS(jnp.sqrt(off), jnp.clip(cosine, -1, 1), norm)


def _products(g: jax.Array, h: jax.Array) -> list[jax.Array]:
    g, h = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (g, h))
    return [jnp.square(g - h).sum(), (g * h).sum(), jnp.square(g).sum(), jnp.square(h).sum()]


def owners(params: Any, layers: Sequence[str]) -> tuple[int, ...]:
    """Return the index of the layer of each leaf."""
    found: list[int] = []
    strays = []
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        starts = [f"{layer}/" if layer else "" for layer in layers]  # "": the model itself
        own = [i for i, start in enumerate(starts) if f"{name}/".startswith(start)]
        if own:
            found.append(max(own, key=lambda i: len(layers[i])))
        else:
            strays.append(name)
    if strays:
        raise ValueError(
            f"`layers` (={tuple(layers)}) must have every parameter, but {strays[0]!r} belongs to "
            f"none of them ({len(strays)} in all); add the layers that have them."
        )
    empty = [layers[i] for i in np.setdiff1d(np.arange(len(layers)), found)]
    if empty:
        raise ValueError(
            f"`layers` names {empty[0]!r}, which has no parameter of its own; leave it out."
        )
    return tuple(found)
