"""What ran: versions of Python and libraries, commit of the code, hardware."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax


def versions() -> dict[str, Any]:
    """Return what ran: versions of Python and libraries, commit of the code, hardware."""
    names = ["jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn"]
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in [*names, "unitnorm-jax"]},
        "git_commit": _git("rev-parse", "HEAD"),
        # An empty string says that the code is the commit's; None that there is no repository.
        "git_changed_files": _git("status", "--porcelain", "--untracked-files=no"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "devices": [device.device_kind for device in devices],
        "backend": devices[0].platform,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return which of two ``versions`` differ in what can change results.

    Example:
        >>> changes({"jax": "0.10.2", "time": "1"}, {"jax": "0.12.0", "time": "2"})
        ['jax was 0.10.2 and is 0.12.0']
    """
    free = ("time", "platform", "cpus")
    return [
        f"{name} was {before.get(name)} and is {now[name]}"
        for name in now
        if name not in free and before.get(name) != now[name]
    ]


def version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else None
