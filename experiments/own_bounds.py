"""A probe that adds a method's own bound to the general ones: the paper's bound, measured."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from experiments.models.fields import params_at
from experiments.norms.method import Bound
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
        """Returns the rows of the report, each with its bound as ``upper_own``."""
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
        self._probe, self._bounds = probe, jax.jit(self._of_layers, static_argnums=2)
        self._bound = bound

    def __call__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> BoundedReport:
        """Measures; see ``ics.ICSProbe``."""
        report = self._probe(before, after)
        sizes = tuple((layer.layer, layer.d) for layer in report.infos)
        # Of what is not packed their parameters alone: handing arrays over takes the time.
        sides = (v if isinstance(v, ics.Packed) else _params(v, sizes) for v in (before, after))
        return BoundedReport(report, self._bounds(*sides, sizes))

    def keep(self, variables: Mapping[str, Any]) -> Any:
        """A copy of a state for a later call; see ``ics.ICSProbe``."""
        return self._probe.keep(variables)

    def _of_layers(
        self, before: Any, after: Any, sizes: tuple[tuple[str, int], ...]
    ) -> dict[str, jax.Array]:
        before, after = (
            _params(v.unpack(), sizes) if isinstance(v, ics.Packed) else v for v in (before, after)
        )
        found = {layer: self._bound(before[layer], after[layer], d) for layer, d in sizes}
        return {layer: bound for layer, bound in found.items() if bound is not None}


def _params(variables: Mapping[str, Any], sizes: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    return {layer: params_at(variables["params"], layer.split("/")) for layer, _ in sizes}
