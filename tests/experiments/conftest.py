"""Training jobs: most of their time is compilation, of programs that run for a moment."""

import gc
from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def compile_quickly() -> Iterator[None]:
    """Without the compiler's optimizations; the library's own tests are compiled with them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def collect_what_failed_saves_leave(request):
    """Orbax leaves a closed event loop to the garbage collector, which would tell of it later.

    So it is collected in the test that expects this: the one that ignores what cannot be raised.
    """
    yield
    expected = request.node.iter_markers("filterwarnings")
    if any("PytestUnraisableExceptionWarning" in text for mark in expected for text in mark.args):
        gc.collect()
