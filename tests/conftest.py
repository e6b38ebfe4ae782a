"""Every run is strict: eight devices, no silent rank promotion, warnings are errors."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import chex
import hypothesis
import jax
import pytest

# Most of the tests' time is compilation: with these options XLA needs a third of its time for it.
# `XLA_FLAGS= pytest` (set, but empty) compiles as for users. Processes that tests start inherit it.
FAST_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
if jax.__version_info__ < (0, 11):  # XLA ends the process at a flag that it does not know.
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FAST_TO_COMPILE)
os.environ.pop("COLUMNS", None)  # of xdist; tables are then as in a pipe: as wide as they are
gc.set_threshold(50_000, 20, 50)  # Tracing allocates much and leaves few cycles.

# Other papers' methods, whole studies, and more of what others test, too: in `make test-slow`.
SLOW = (
    "contrib",
    "experiments/analysis/browser_test.py",
    "experiments/analysis/figures/overlap_test.py",
    "experiments/common/storage_test.py",
    "experiments/data/prepare/prepare_test.py",
    "experiments/methods/enorm_test.py",
    "experiments/methods/own_bounds_test.py",
    "experiments/models/ic_resnet_test.py",
    "experiments/models/kalman_resnet_test.py",
    "experiments/old_run_test.py",
    "experiments/studies",
    "experiments/training/corrupted_test.py",
    "experiments/training/mirror_test.py",
    "experiments/training/nonfinite_test.py",
    "experiments/training/parallel/run_test.py",
    "functional/export_test.py",
    "functional/mapped_axis_test.py",
    "ics/distances/derivative_test.py",
    "ics/distances/meshes_test.py",
    "ics/probe/estimation_test.py",
    "ics/probe/others_test.py",
    "ics/probe/probe_mesh_test.py",
    "ics/probe/tiles_test.py",
    "linen/unitize_objects_test.py",
    "nnx/transforms_test.py",
    "user_models_test.py",
)

# Before any JAX computation: the multi-device tests need them, and must never skip.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", deadline=None, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs beside pytest's cache: most of the tests' time is compilation."""
    cache = getattr(config, "cache", None)  # None under -p no:cacheprovider.
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)  # Before -m chooses by the marks.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(tests / name) for name in SLOW):
            item.add_marker("slow")


def pytest_sessionstart() -> None:
    if jax.device_count() != 8:
        raise pytest.UsageError(
            f"The tests need 8 CPU devices, JAX shows {jax.devices()}: do not use JAX before them."
        )


@pytest.fixture(scope="module", autouse=True)
def _few_programs_in_memory() -> Iterator[None]:
    """Drop compiled programs before the kernel's limit of mappings for a process, 65,530, is met.

    Each program has some of its own; a process that has compiled all of these tests would crash.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _traces_are_counted_for_each_test() -> None:
    """`chex.assert_max_traces` counts by a function's name, in all tests together."""
    chex.clear_trace_counter()


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test."""
    with jax.enable_x64(True):
        yield
