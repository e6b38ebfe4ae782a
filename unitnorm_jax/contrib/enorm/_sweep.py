"""The published sweep of equi-normalization, on a list of kernels."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from unitnorm_jax.contrib.enorm._functional import enorm_chain, enorm_factors, enorm_rescale

Kernels = list[Float[Array, "..."]]


def enorm_sweep(
    kernels: Sequence[Float[Array, "..."]],
    *,
    c: float | int = 1.0,
    p: float | int = 2,
    momenta: Sequence[Float[Array, "..."]] | None = None,
    balance_last: bool = False,
) -> Kernels | tuple[Kernels, Kernels]:
    r"""Return one cycle of equi-normalization of consecutive layers, as the published code does it.

    With the norms before the cycle, for all units i between layer k and layer k + 1 at once::

        d_i = sqrt(\|W_{k+1}[..., i, :]\|_p / (c \|W_k[..., i]\|_p))
        W_k[..., i] *= d_i,   W_{k+1}[..., i, :] /= d_i

    The function of a ReLU network without biases stays as it is; for one with biases, norms or
    branches see ``enorm_factors``, of which this is the plain case.

    Args:
        kernels: kernels (..., in, out) in the order of the layers: Dense (in, out), Conv (height,
            width, in, out).
        c: asymmetry: where balanced, outgoing norms are c times incoming norms.
        p: the norm.
        momenta: momentum buffers of the kernels, scaled inversely. (The published code does so for
            convolutional networks, and leaves the buffers of dense networks as they are.)
        balance_last: also balance the last pair; the published code does not.

    Returns:
        The kernels; with ``momenta`` the pair of kernels and momenta.

    Raises:
        ValueError: an option is out of its range, kernels do not chain, or momenta do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.enorm import enorm_sweep
        >>> kernels = [jnp.array([[4.0]]), jnp.array([[1.0]]), jnp.array([[3.0]])]
        >>> [float(kernel[0, 0]) for kernel in enorm_sweep(kernels)]
        [2.0, 2.0, 3.0]

    References:
        Pierre Stock, Benjamin Graham, Rémi Gribonval and Hervé Jégou, `Equi-normalization of Neural
        Networks <https://arxiv.org/abs/1902.10416>`_, ICLR 2019, and its code,
        facebookresearch/enorm, of which this returns the numbers. Departures: p counts for
        convolutions too (there it is always 2), and a unit without weights is left as it is (there
        it becomes NaN).
    """
    names = [f"kernels[{k}]" for k in range(len(kernels))]
    for name, kernel in zip(names, kernels, strict=True):
        if kernel.ndim < 2:
            raise ValueError(
                f"`{name}` has shape {kernel.shape}, but a kernel has at least the two axes "
                "(..., in, out)."
            )
    if momenta is not None:
        shapes = [m.shape for m in momenta]
        if shapes != [kernel.shape for kernel in kernels]:
            raise ValueError(
                f"`momenta` have shapes {shapes}; they must be those of the kernels: "
                f"{[kernel.shape for kernel in kernels]}."
            )
    params = {name: {"kernel": kernel} for name, kernel in zip(names, kernels, strict=True)}
    groups = enorm_chain(names if balance_last else names[:-1])
    factors = enorm_factors(params, groups, c=c, p=p).params
    balanced = enorm_rescale(params, factors)
    if momenta is None:
        return [balanced[name]["kernel"] for name in names]
    buffers = {name: {"kernel": m} for name, m in zip(names, momenta, strict=True)}
    buffers = enorm_rescale(buffers, factors, -1)
    first, second = ([tree[name]["kernel"] for name in names] for tree in (balanced, buffers))
    return first, second
