"""Every run is strict: eight devices, no silent rank promotion, warnings are errors."""

import os
from collections.abc import Iterator

import hypothesis
import jax
import pytest

# Before any JAX computation: the multi-device tests need them, and must never skip.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", deadline=None, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_sessionstart() -> None:
    if jax.device_count() != 8:
        raise pytest.UsageError(
            f"The tests need 8 CPU devices, JAX shows {jax.devices()}: do not use JAX before them."
        )


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test."""
    with jax.enable_x64(True):
        yield
