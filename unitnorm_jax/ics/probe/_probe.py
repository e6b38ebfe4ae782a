"""Measure the shift of a model's layers between two states of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from unitnorm_jax._nnx_objects import is_nnx
from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.probe._function import Function
from unitnorm_jax.ics.probe._linen import Linen
from unitnorm_jax.ics.probe._mapped import Calling
from unitnorm_jax.ics.probe._measuring import Measuring, Source


@jax.tree_util.register_pytree_node_class
class ICSProbe(Measuring):
    """Measure, for each layer, W1 between its outputs before and after an update.

    ``ICS of a layer = W1({f_before(x_i)}, {f_after(x_i)})`` over the n samples x_i of the probe
    batch, the same on both sides, with a certificate (`em_distance`) and closed-form bounds.

    Works with any model as it is: a linen module (outputs are taken by an interceptor, see
    `layer_outputs`), an nnx module (by ``nnx.capture``), or any function, by `ICSProbe.of`.
    The axis of the samples in an output, wherever it lies, is the one that grows when the model is
    traced, without computing, for a batch of one sample more. All other axes make up the dimension.
    Where two axes fit, the report says which was taken (`LayerICS.note`). Layers under ``nn.scan``,
    ``nn.vmap`` and ``nn.RNN`` are measured one by one: ``block/norm[3]``, along the axis on which
    the transform carries "intermediates" out (nested ones: ``[0,3]``, in the order of their axes).
    If it carries none, and the probe cannot put it beside the parameters, the row says so.

    A layer that cannot be measured is a row with its reason, and numbers that are NaN (see
    `strict`).

    The forward pass is one function under ``jax.jit``, and what is measured of all layers another;
    they are compiled at the first call and not again while the variables keep their shapes, dtypes
    and shardings. It writes nothing: what the model stores (running statistics) is
    discarded, and nothing is donated. It keeps its own copy of the batch and no variables.

    It is a pytree, of that copy and the keys: a jitted function that measures and does more can
    take it as an argument. One that closes over it has the batch in its program.

    A state that the training step was given to donate is gone afterwards: `keep` it before the
    step, as `ICSRecord` does.

    Devices. A batch sharded over the samples is processed where it lies; the wanted outputs are
    then gathered, and the distances are computed alike on every device, so they are those of one
    device up to rounding in the forward pass (batch statistics sum in another order). For a model
    whose layers average over a mapped axis, give its name as `axis_name`: the whole probe batch is
    then one member of that axis, which has size 1.

    Args:
        model: Any linen or nnx module.
        batch: What the model is called with: an array (n, ...), a pytree given as the one argument,
            or a tuple: the positional arguments. All but arrays, such as strings and flags, is
            handed on as it is. The n samples are those of the first array.
        layers: Which: None, every normalization layer; or a module class, a pattern of paths, a
            predicate, or a tuple of these; see `layer_filter`.
        outputs: Where a layer returns several arrays, which of them to measure, by their place
            (`LayerICS.output`): ("", "[0]") are single arrays and the first of tuples. None: all.
        mode: "eval", the default: the model is called with `eval_kwargs` and may write nothing, so
            layers use their running statistics. "train": with `train_kwargs`, and layers use those
            of the probe batch. `LayerICS.statistics` states what each layer did use.
        train_kwargs: Keyword arguments of the model in mode "train", for example ``{"train":
            True}``; constants of the compiled function.
        eval_kwargs: The same in mode "eval".
        rngs: Keys by name, for example ``{"dropout": key}``: the same on both sides.
        apply_method: The method to apply, default ``__call__``; as ``method`` in ``model.apply``.
        axis_name: Of the mapped axis that the model's layers reduce over, if any; or a tuple of
            names.
        sample_axis: Of the samples in the arrays of the batch: 1 for time-major sequences; or a
            tree of axes that begins as the arguments do, as ``in_axes`` of `jax.vmap`, with None
            for arrays without samples.
        points: What one point of the distance is: "samples", each with all its numbers, or "steps":
            each step of each sample, for sequences. The rows say which (`LayerICS.points`).
        step_axis: Of the steps in the first array; default the first that is not `sample_axis`.
        mask: Which samples count, bool (n,), or which steps of each, (n, steps), laid out as the
            batch. Others are no points; in a sample that counts, masked steps are 0 on both sides.
        weights: Of the samples, (n,), default equal. Closed-form bounds but the pairing's are for
            equal ones, and NaN with these.
        measures: Further columns: "em" (always there), "moments" (drift of mean and standard
            deviation by channel), "channels" (W1 by channel), "mmd", "kmm" (effective sample size
            of kernel mean matching), "gaussian" (W2 of normal distributions), "estimation" (running
            statistics, after the update, against those of the layer's inputs, as in `mode`; one
            more forward pass), "gradient" (needs `loss`); see ``ics.measures``. Of channels the
            median and the 90 % quantile; channels lie along the last axis.
        loss: For "gradient": ``loss(variables, *batch)``, of an nnx model ``loss(model, *batch)``;
            a number.
        method: How distances are computed, see `em_distance`. The default solves on the host, by a
            callback, only where the bounds leave a gap.
        tolerance: Of the distances, see `em_distance`.
        strict: Whether a layer that cannot be measured raises. It then waits for the numbers.

    Raises:
        ValueError: If an argument is invalid, or the batch is empty; and, at the first call, as
            `layer_outputs`; with `strict` also if a wanted output stays inside a transform, is not
            n samples of real numbers, not finite, or constant.

    Warns:
        UserWarning: At the first call, where two axes of an output could be that of the samples.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> before = model.init(jax.random.key(1), x)
        >>> after = jax.tree.map(lambda p: p + 0.25, before)
        >>> report = ICSProbe(model, x)(before, after)
        >>> [(layer.layer, layer.n, layer.d) for layer in report.layers]
        [('layers_1', 8, 4)]

    References:
        Y. Huang, Y. Yu, An internal covariate shift bounding algorithm for deep neural networks by
        unitizing layers' outputs, 2020 (the measure).
    """

    def __init__(
        self,
        model: Any,
        batch: Any,
        layers: Any = None,
        *,
        outputs: tuple[str, ...] | None = None,
        mode: str = "eval",
        train_kwargs: Mapping[str, Any] | None = None,
        eval_kwargs: Mapping[str, Any] | None = None,
        rngs: Mapping[str, jax.Array] | None = None,
        apply_method: str | Callable[..., Any] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
        sample_axis: Any = 0,
        points: str = "samples",
        step_axis: int | None = None,
        mask: Any = None,
        weights: Any = None,
        measures: Sequence[str] = ("em",),
        loss: Callable[..., Any] | None = None,
        method: str | Solver = "auto",
        tolerance: float | int = 1e-5,
        strict: bool = False,
    ) -> None:
        """Check the arguments and copy the batch; compile nothing."""
        if mode not in ("train", "eval"):
            raise ValueError(f"`mode` (={mode!r}) must be 'train' or 'eval'.")
        names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
        names = tuple(name for name in names if name is not None)
        kwargs = dict((train_kwargs if mode == "train" else eval_kwargs) or {})
        calling = Calling(layers, outputs, mode, kwargs, apply_method, names)
        source: Source
        if isinstance(model, nn.Module):
            source = Linen(model, calling)
        elif is_nnx(model, "Module"):
            from unitnorm_jax.ics.probe._nnx import Nnx  # takes a second to import

            source = Nnx(model, calling)
            if rngs is not None:
                raise ValueError(
                    f"`rngs` (={sorted(rngs)}) must be None for an nnx model: its streams are part "
                    "of it, and both sides draw from them as they are when the probe is made."
                )
        else:
            raise ValueError(
                f"`model` (={type(model).__name__}) must be an instance of flax.linen.Module or "
                "flax.nnx.Module; for other models give a function to `ICSProbe.of`."
            )
        args = batch if isinstance(batch, tuple) else (batch,)
        if not isinstance(batch, tuple) and not isinstance(sample_axis, int):
            sample_axis = (sample_axis,)
        self._start(
            source,
            args,
            mode,
            rngs,
            method,
            tolerance,
            strict,
            sample_axis,
            measures,
            loss,
            points=points,
            step_axis=step_axis,
            mask=mask,
            weights=weights,
        )

    @classmethod
    def of(
        cls,
        f: Any,
        batch: Any,
        layers: Any = None,
        *,
        mode: str = "eval",
        sample_axis: Any = 0,
        points: str = "samples",
        step_axis: int | None = None,
        mask: Any = None,
        weights: Any = None,
        measures: Sequence[str] = ("em",),
        method: str | Solver = "auto",
        tolerance: float | int = 1e-5,
        strict: bool = False,
    ) -> "ICSProbe":
        """Return a probe of any function, for models that are not Flax's.

        Args:
            f: ``f(state, batch) -> {name: array}``, a pure function: the outputs to measure, by
                name. Under ``jax.jit``, so it is traced once.
            batch: What `f` takes: an array (n, ...) or any pytree, given as it is.
            layers: A pattern of names, or a tuple of patterns; None: all that `f` returns.
            mode: What the rows say of how `f` calls its model; it changes nothing.
            sample_axis: As in `ICSProbe`, and so are the others.
            points: See there.
            step_axis: See there.
            mask: See there.
            weights: See there.
            measures: See there; without "estimation" and "gradient".
            method: See there.
            tolerance: See there.
            strict: See there.

        Returns:
            The probe. Its calls take two states, of any pytree: arrays are traced; all else in it,
            such as the functions in a module of equinox, must be hashable and is part of the
            program.

        Raises:
            ValueError: As `ICSProbe`.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> f = lambda w, x: {"hidden": jnp.tanh(x @ w)}
            >>> x = jax.random.normal(jax.random.key(0), (8, 3))
            >>> w = jnp.eye(3)
            >>> (layer,) = ICSProbe.of(f, x)(w, 1.1 * w).layers
            >>> layer.layer, layer.n, layer.d, bool(layer.distance.exact)
            ('hidden', 8, 3, True)
        """
        probe = cls.__new__(cls)
        probe._start(
            Function(f, layers),
            (batch,),
            mode,
            None,
            method,
            tolerance,
            strict,
            sample_axis if isinstance(sample_axis, int) else (sample_axis,),
            measures,
            points=points,
            step_axis=step_axis,
            mask=mask,
            weights=weights,
        )
        return probe
