"""Noise-aware batch normalization: the running statistics of a model under the noise it meets.

For every linen layer that keeps a ``mean`` and a ``var`` in ``batch_stats`` and normalizes with
them at inference: ``nn.BatchNorm``, ``UnitizedBatchNorm``, and the others of this package. The
model is not changed: an interceptor looks at what each such layer is given.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from unitnorm_jax._interception import intercepted, new_pass
from unitnorm_jax.contrib.noise_aware_batch_norm._functional import (
    batch_statistics,
    pool_statistics,
    track_statistics,
)
from unitnorm_jax.functional import BatchStats

Variables = Mapping[str, Any]
Observer = Callable[[nn.Module, BatchStats, jax.Array], Callable[[], None] | None]

# Beside each `mean`; not `count`, where layers with a scheduled rate count their updates.
_NUMBER = "number_of_values"


def collect_statistics(
    model: nn.Module, variables: Variables, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Statistics of a batch at every normalization of a model, for ``recalibrate``.

    One forward pass at inference, in which each layer normalizes with the statistics of the batch
    itself; so layers behind it see what they will see once they are all recalibrated. Put the noise
    into ``variables``, or around the call (``output_noise``).

    Args:
        model: any linen module.
        variables: its collections, with the weights as they are on the hardware.
        *args: for ``model.apply``: a batch without labels.
        **kwargs: for ``model.apply``; must ask for running statistics, as ``train=False``.

    Returns:
        The ``batch_stats`` with the batch's statistics, and beside each ``mean`` a
        ``number_of_values``, of its shape.

    Raises:
        ValueError: no layer keeps statistics, or one was not asked to use them.

    Example:
        See ``recalibrate``.

    References:
        See ``recalibrate``.
    """

    def observe(
        module: nn.Module, batch: BatchStats, count: jax.Array
    ) -> Callable[[], None] | None:
        before: tuple[BatchStats, jax.Array] | None = None
        if module.has_variable("batch_stats", _NUMBER):  # a layer that is called again
            before = _get(module), module.get_variable("batch_stats", _NUMBER)
        _put(module, batch)
        module.put_variable("batch_stats", _NUMBER, count)
        if before is None:
            return None

        earlier, number = before

        def pool() -> None:
            _put(module, pool_statistics([earlier, batch], [number, count]))
            module.put_variable("batch_stats", _NUMBER, number + count)

        return pool

    _, updated = _apply(model, variables, observe, args, kwargs)
    return dict(updated["batch_stats"])


def recalibrate(variables: Variables, collected: Iterable[Variables]) -> dict[str, Any]:
    r"""Replace the running statistics of a model by those of unlabelled batches under noise.

    Everything else is kept: no weight, scale or bias is trained. Batches are pooled by their
    counts n, not by a moving average, so that their order and sizes do not matter::

        mean = sum n mean_b / sum n
        var  = sum n (var_b + mean_b^2) / sum n - mean^2

    Args:
        variables: the model's collections.
        collected: what ``collect_statistics`` returned for each batch.

    Returns:
        A new dictionary of collections.

    Raises:
        ValueError: nothing was collected, or it is of another model.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import collect_statistics, recalibrate
        >>> model = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True)])
        >>> batches = jax.random.normal(jax.random.key(0), (3, 32, 5))
        >>> variables = model.init(jax.random.key(1), batches[0])
        >>> chip = additive_noise(0.1)(jax.random.key(2), variables["params"])
        >>> noisy = {**variables, "params": chip}
        >>> collect = jax.jit(lambda variables, x: collect_statistics(model, variables, x))
        >>> noisy = recalibrate(noisy, [collect(noisy, x) for x in batches])
        >>> y = model.apply(noisy, batches.reshape(-1, 5))
        >>> bool(jnp.allclose(y.mean(0), 0, atol=1e-5)), bool(jnp.allclose(y.std(0), 1, atol=1e-2))
        (True, True)

    References:
        Li-Huang Tsai, Shih-Chieh Chang, Yu-Ting Chen, Jia-Yu Pan, Wei Wei and Da-Cheng Juan,
        `Robust Processing-In-Memory Neural Networks via Noise-Aware Normalization
        <https://arxiv.org/abs/2007.03230>`_, 2020: the statistics are recalculated at inference,
        without knowledge of the noise. That layers are calibrated together, and pooling by counts,
        are derived here; there is no published code.
    """
    trees = [flatten_dict(tree) for tree in collected]
    if not trees:
        raise ValueError("`collected` is empty: give what collect_statistics returned, per batch.")
    stats = dict(flatten_dict(variables.get("batch_stats", {})))
    for path in [path for path in trees[0] if path[-1] == _NUMBER]:
        mean, var = (*path[:-1], "mean"), (*path[:-1], "var")
        if mean not in stats or any(path not in tree for tree in trees):
            raise ValueError(
                f"`collected` has statistics of a layer {'/'.join(path[:-1])!r}, but `variables` "
                "or another batch has none: they must be of the same model."
            )
        pooled = pool_statistics(
            [BatchStats(tree[mean], tree[var]) for tree in trees], [tree[path] for tree in trees]
        )
        count = sum(tree[path] for tree in trees)
        for at, new in zip((mean, var), pooled, strict=True):
            # A feature that had no valid value keeps what it had.
            stats[at] = jnp.where(count > 0, new, stats[at]).astype(stats[at].dtype)
    return {**variables, "batch_stats": unflatten_dict(stats)}


def track(
    model: nn.Module,
    variables: Variables,
    *args: Any,
    rate: jax.Array | float | int,
    **kwargs: Any,
) -> tuple[Any, dict[str, Any]]:
    r"""Inference whose running statistics follow the batches, for noise that varies in time.

        running = (1 - rate) * running + rate * batch

    at each normalization, before it normalizes the batch. At ``rate=1`` every batch is normalized
    by its own statistics, as in training; at 0 it is plain inference.

    Args:
        model: any linen module.
        variables: its collections, with the weights as they are on the hardware.
        *args: for ``model.apply``.
        rate: weight of the batch, in [0, 1]; may be traced.
        **kwargs: for ``model.apply``; must ask for running statistics, as ``train=False``.

    Returns:
        The output, and the collections with the new statistics.

    Raises:
        ValueError: ``rate`` is not in [0, 1], no layer keeps statistics, or one was not asked to
            use them.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import track
        >>> model = nn.BatchNorm(use_running_average=True)
        >>> x = 5 + jax.random.normal(jax.random.key(0), (32, 3))
        >>> y, variables = track(model, model.init(jax.random.key(1), x), x, rate=0.5)
        >>> bool(jnp.allclose(variables["batch_stats"]["mean"], 0.5 * x.mean(0), atol=1e-5))
        True

    References:
        The layers of https://arxiv.org/abs/2007.03230 track the shifts of the statistics at
        inference; this form, and that the rate is an argument, are derived here.
    """

    def observe(module: nn.Module, batch: BatchStats, count: jax.Array) -> None:
        before = _get(module)
        tracked = track_statistics(before, batch, rate)
        some = count > 0
        _put(
            module,
            BatchStats(*(jnp.where(some, t, b) for t, b in zip(tracked, before, strict=True))),
        )

    y, updated = _apply(model, variables, observe, args, kwargs)
    return y, {**variables, **updated}


def _apply(
    model: nn.Module, variables: Variables, observe: Observer, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """Apply the model; ``observe`` may set each layer's statistics before it normalizes."""
    found: set[tuple[str, ...]] = set()
    active: set[tuple[str, ...]] = set()

    def intercept(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        keeps = all(module.has_variable("batch_stats", name) for name in ("mean", "var"))
        # A super().__call__ inside a call is not a call of its own.
        if context.method_name != "__call__" or not keeps or module.path in active:
            return next_fun(*args, **kwargs)
        _check_inference(module, args, kwargs)
        found.add(module.path)
        batch, count = batch_statistics(
            args[0],
            axis=getattr(module, "axis", -1),
            mask=kwargs.get("mask"),
            axis_name=getattr(module, "axis_name", None),
            axis_index_groups=getattr(module, "axis_index_groups", None),
        )
        dtype = module.get_variable("batch_stats", "mean").dtype
        after = observe(module, BatchStats(*(s.astype(dtype) for s in batch)), count)
        active.add(module.path)
        try:
            y = next_fun(*args, **kwargs)
        finally:
            active.discard(module.path)
        if after is not None:
            after()
        return y

    with intercepted(intercept):
        out = model.apply(variables, *args, **kwargs, mutable=["batch_stats", new_pass()])
    if not found:
        raise ValueError(
            f"No layer of {type(model).__name__} keeps a running `mean` and `var` in "
            "`batch_stats`, so there is nothing to recalibrate or track."
        )
    return out


def _check_inference(module: nn.Module, args: Any, kwargs: Any) -> None:
    given = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
    flag = getattr(module, "use_running_average", None) if given is None else given
    if not flag:
        raise ValueError(
            f"Layer {'/'.join(module.path)!r} was not asked to use its running statistics: apply "
            "the model as at inference, for example with train=False."
        )


def _get(module: nn.Module) -> BatchStats:
    return BatchStats(*(module.get_variable("batch_stats", name) for name in ("mean", "var")))


def _put(module: nn.Module, stats: BatchStats) -> None:
    for name, value in stats._asdict().items():
        module.put_variable("batch_stats", name, value)
