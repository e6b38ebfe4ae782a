"""How the one step runs on several devices: jit over a mesh, pmap or shard_map."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.config.parallel import DevicesConfig
from experiments.training.parallel.ghost import Apply, by_group
from experiments.training.steps import Batch

GROUP, MEMBER = "group", "member"
AXES = (GROUP, MEMBER)
PMAP_AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class Transform:
    """Devices, and how a step ``step(state, batch, axis_name=...)`` is spread over them.

    The devices are a mesh of groups x members; the members of a group share batch statistics:

    ============  ==================  ====================  =======================================
    statistics    jit                 shard_map             pmap
    ============  ==================  ====================  =======================================
    synchronised  global arrays       ``axis_name`` MEMBER  ``axis_name``
    grouped       vmap over groups    ``axis_name`` MEMBER  ``axis_name`` and ``axis_index_groups``
    per_device    vmap over devices   local arrays          local arrays
    ============  ==================  ====================  =======================================

    Gradients, and the running statistics that each group updates, are averaged over all devices.

    Attributes:
        mode: "jit", "pmap" or "shard_map".
        mesh: The devices, ``(groups, members)``; those of a process are neighbours.
    """

    mode: str
    mesh: Mesh

    @property
    def devices(self) -> int:
        """Number of devices, over all processes."""
        return self.mesh.devices.size

    @property
    def plain(self) -> bool:
        """Whether this is jit on one device, with nothing to place."""
        return self.mode == "jit" and self.devices == 1

    @property
    def axis_name(self) -> str | tuple[str, ...] | None:
        """``axis_name`` of the steps."""
        return {"jit": None, "pmap": PMAP_AXIS, "shard_map": AXES}[self.mode]

    @property
    def axes(self) -> dict[str, Any]:
        """Over which devices layers take batch statistics: fields of ``methods.Context``."""
        groups, members = self.mesh.devices.shape
        if self.mode == "jit" or members == 1:
            return {}
        if self.mode == "shard_map":
            return {"axis_name": MEMBER}
        index = np.arange(self.devices).reshape(groups, members).tolist()
        return {"axis_name": PMAP_AXIS, "axis_index_groups": index if groups > 1 else None}

    def apply_fn(self, apply: Apply) -> Apply:
        """Return what the steps call instead of the network's ``apply``."""
        groups = self.mesh.devices.shape[0]
        if self.mode != "jit" or groups == 1:
            return apply
        sharding = NamedSharding(self.mesh, PartitionSpec(*AXES))
        return by_group(apply, groups, lambda x: jax.lax.with_sharding_constraint(x, sharding))

    def init(self, init: Callable[..., Any]) -> Any:
        """Return ``init(key, images)``, jitted; its result is on all devices."""
        if self.mode == "pmap" or self.plain:
            return jax.jit(init)
        return jax.jit(init, out_shardings=self.replicated)

    def train_step(self, step: Callable[..., Any], batch_size: int) -> "Step":
        """Return ``train_step(state, batch)`` of the whole batch; the state given is consumed."""
        return Step(self, self._map(step, donate=True), batch_size)

    def eval_step(self, step: Callable[..., Any], batch_size: int) -> "Step":
        """Return ``eval_step(state, batch)`` of the whole batch."""
        return Step(self, self._map(step, donate=False), batch_size)

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of the state: every device has all of it."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding:
        """Sharding of a batch as ``Step.place`` returns it: its first axis, over the devices.

        For pmap, that axis has one entry for each device of this process.
        """
        if self.mode != "pmap":
            return NamedSharding(self.mesh, PartitionSpec(AXES))
        local = [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]
        return NamedSharding(Mesh(np.array(local), (PMAP_AXIS,)), PartitionSpec(PMAP_AXIS))

    def _map(self, step: Callable[..., Any], donate: bool) -> Any:
        step = partial(step, axis_name=self.axis_name)
        donated = 0 if donate else ()
        if self.mode == "pmap":
            devices = list(self.mesh.devices.flat)
            return jax.pmap(
                step,
                PMAP_AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=devices,
                donate_argnums=donated,
            )
        if self.mode == "shard_map":
            specs = PartitionSpec(), PartitionSpec(AXES)
            step = jax.shard_map(step, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec())
        if self.plain:
            return jax.jit(step, donate_argnums=donated)
        return jax.jit(
            step,
            in_shardings=(self.replicated, self.split),
            out_shardings=self.replicated,
            donate_argnums=donated,
        )


@dataclasses.dataclass(frozen=True)
class Step:
    """A mapped step: ``step(state, batch)``.

    The batch is the whole batch or, with several processes, this process's part of it: processes,
    in order, have parts of equal size.

    Attributes:
        transform: How it is mapped.
        function: The mapped function, of a batch that ``place`` returned.
        batch_size: Images of the whole batch.
    """

    transform: Transform
    function: Any
    batch_size: int

    def __call__(self, state: Any, batch: Batch) -> Any:
        """Run the step."""
        return self.function(state, self.place(batch))

    def place(self, batch: Batch) -> Any:
        """Return ``batch`` with each part on its device; what is there already is left there."""
        if self.transform.plain:
            return batch
        return {name: self._put(x) for name, x in batch.items()}

    def compile(self, state: Any, batch: Batch) -> "Step":
        """Return the step compiled for such arguments, so that no later call compiles."""
        if self.transform.mode == "pmap":  # What it compiles ahead of time, it cannot call.
            self.function(jax.tree.map(jnp.copy, state), self.place(batch))
            return self
        compiled = self.function.lower(state, self.place(batch)).compile()
        return dataclasses.replace(self, function=compiled)

    def _put(self, x: Any) -> jax.Array:
        sharding = self.transform.split
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if self.transform.mode == "pmap":
            part = self._part(x)
            devices = sharding.mesh.size
            return jax.device_put(part.reshape(devices, -1, *part.shape[1:]), sharding)
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, self._part(x))

    def _part(self, x: Any) -> Any:
        """Return this process's part of the whole batch."""
        processes = jax.process_count()
        part = self.batch_size // processes
        if len(x) == self.batch_size:
            start = jax.process_index() * part
            return x[start : start + part]
        if len(x) == part:
            return x
        raise ValueError(
            f"a batch has {len(x)} images, but must have {self.batch_size}, or {part} of each of "
            f"{processes} processes."
        )


def make_transform(
    config: DevicesConfig | None = None, devices: Sequence[Any] | None = None
) -> Transform:
    """Return the transform that ``config`` describes.

    Args:
        config: Options; default: theirs.
        devices: The devices; default: those of all processes, or the first ``num_devices``.

    Raises:
        ValueError: If there are fewer devices than asked for, or groups do not divide them.

    Example:
        >>> import jax
        >>> make_transform(devices=jax.devices()[:1]).mode
        'jit'
    """
    config = config or DevicesConfig()
    # Those of a process side by side, so that its part of a batch is in one piece.
    found = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    count = config.num_devices or len(found)
    if count > len(found):
        raise ValueError(
            f"`num_devices` (={count}) must be at most the number of devices there are: "
            f"{len(found)} ({found[0].device_kind})."
        )
    if count < len(found) and found[0].process_index != found[-1].process_index:
        raise ValueError(
            f"`num_devices` (={count}) must not be given with several processes: they use all "
            f"their devices, {len(found)}."
        )
    sizes = {"synchronised": count, "grouped": config.statistics_group, "per_device": 1}
    members = sizes[config.statistics] or count
    if count % members != 0:
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise ValueError(
            f"`statistics_group` (={members}) must divide the number of devices: {count}; choose "
            f"from {divisors}."
        )
    grid = np.array(found[:count]).reshape(count // members, members)
    mesh = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)
    return Transform("jit" if config.parallel == "auto" else config.parallel, mesh)
