"""Which axes of an input are samples, positions and features."""

import math
from typing import Any, NamedTuple

import jax


class Layout(NamedTuple):
    """Shape of an input, and the axes of samples and of features, samples before features.

    What is left are positions. Small arrays are (samples, channels) matrices; the input itself is
    never reshaped, because XLA would then convert half precision once for each shape. Sizes may be
    symbolic.
    """

    shape: tuple[Any, ...]
    samples: tuple[int, ...]
    features: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes that are neither samples nor features."""
        others = (*self.samples, *self.features)
        return tuple(i for i in range(len(self.shape)) if i not in others)

    @property
    def counts(self) -> tuple[Any, Any, Any]:
        """Numbers of samples (1 where there is no such axis), of positions, and of channels."""
        axes = self.samples, self.positions, self.features
        samples, positions, channels = (math.prod(self.shape[i] for i in some) for some in axes)
        return samples, positions, channels

    def over_positions(self, z: jax.Array, **options: Any) -> jax.Array:
        """Return the sums over positions, (samples, channels)."""
        return self.matrix(z.sum(self.positions, **options))

    def matrix(self, sums: jax.Array) -> jax.Array:
        """Return sums over positions as a matrix, (samples, channels)."""
        samples, _, channels = self.counts
        return sums.reshape(samples, channels)

    def spread(self, v: jax.Array) -> jax.Array:
        """Return a (samples, channels) or (channels,) array, to broadcast with the input."""
        kept = (*self.samples, *self.features) if v.ndim == 2 else self.features
        return v.reshape([size if i in kept else 1 for i, size in enumerate(self.shape)])
