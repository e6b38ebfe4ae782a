"""A probe that adds a method's own bound to the general ones: the paper's bound, measured."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from experiments.methods.method import Bound
from experiments.models.fields import params_at
from unitnorm_jax import ics


class BoundedReport(NamedTuple):
    """A report of the probe with the method's own bounds; see ``ics.ICSReport``.

    Attributes:
        report: Of the probe.
        bounds: The bound on the shift of each layer that has one, by layer.
    """

    report: ics.ICSReport
    bounds: Mapping[str, jax.Array]

    def rows(self, **more: Any) -> list[dict[str, Any]]:
        """Return the rows of the report, each with its bound as ``upper_own``."""
        bounds = jax.device_get(self.bounds)
        rows = self.report.rows(**more)
        for row in rows:
            if row["layer"] in bounds and not row["reason"]:
                row["upper_own"] = float(bounds[row["layer"]])
        return rows


class BoundedProbe:
    """A probe whose reports have the method's own bounds.

    Args:
        probe: Measures the shift.
        bound: The method's, for one layer.
    """

    def __init__(self, probe: ics.ICSProbe, bound: Bound) -> None:
        """Nothing is compiled yet."""
        self._probe, self._bound = probe, bound
        self._bounds = jax.jit(self._bounds_of, static_argnums=0)

    def __call__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> BoundedReport:
        """Measure; see ``ics.ICSProbe``."""
        # Not jitted as a whole: gradient ICS would be one loop, which is slow on CPUs.
        report = self._probe(before, after)
        params = [ics.unpack(variables)["params"] for variables in (before, after)]
        layers = tuple((layer.layer, layer.d) for layer in report.infos)
        return BoundedReport(report, self._bounds(layers, *params))

    def keep(self, variables: Mapping[str, Any]) -> Any:
        """Return a copy of a state for a later call; see ``ics.ICSProbe``."""
        return self._probe.keep(variables)

    def _bounds_of(
        self, layers: tuple[tuple[str, int], ...], before: Any, after: Any
    ) -> dict[str, jax.Array]:
        bounds = {}
        for layer, d in layers:
            old, new = (params_at(side, layer.split("/")) for side in (before, after))
            bounds[layer] = self._bound(old, new, d)
        return {layer: bound for layer, bound in bounds.items() if bound is not None}
