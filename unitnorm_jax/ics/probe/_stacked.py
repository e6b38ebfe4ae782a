"""The measures of all layers in two arrays: each array more is a program to compile and to read."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.probe._measure import LOWER, UPPER, Measure


class Stacked(NamedTuple):
    """`Measure` of all layers, its numbers one below the other."""

    numbers: Float[Array, "numbers layers"]
    """Value, lower and upper of the distance, the same of the relative one, spread, bounds."""
    flags: Bool[Array, "flags layers"]
    """``distance.exact``, ``relative.exact``, and the other flags in their order."""

    def measure(self, others: dict[str, Any] | None = None) -> Measure:
        """Return them by name, of numpy or JAX arrays, with other measures.

        Args:
            others: By name, (layers,).
        """
        exact, relative_exact, optimal, before, after = self.flags
        rest = iter(self.numbers)
        three = lambda flag: EMDistance(next(rest), next(rest), next(rest), flag)  # noqa: E731
        distance, relative, spread = three(exact), three(relative_exact), next(rest)
        upper, lower = ({name: next(rest) for name in names} for names in (UPPER, LOWER))
        return Measure(distance, relative, spread, upper, lower, optimal, before, after, others)


def stack(m: Measure) -> Stacked:
    """Stack a measure of (layers,) arrays."""
    bounds = [*(m.upper[name] for name in UPPER), *(m.lower[name] for name in LOWER)]
    numbers = [*m.distance[:3], *m.relative[:3], m.spread, *bounds]
    flags = [m.distance.exact, m.relative.exact, m.pairing_optimal]
    return Stacked(jnp.stack(numbers), jnp.stack([*flags, m.finite_before, m.finite_after]))


def of_no_layer() -> Stacked:
    """Return the measures of none."""
    return Stacked(jnp.zeros((7 + len(UPPER) + len(LOWER), 0)), jnp.zeros((5, 0), bool))
