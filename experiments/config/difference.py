"""Whether a run may go on with a configuration: what must be the same, and what is free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.config.experiment import TrainConfig, from_dict, to_dict

# Options that do not change what a run computes: a run may be resumed with other values of them.
# (That the data in another folder are the same is checked by the record of the data.)
FREE_FIELDS = frozenset(
    {
        *("run_dir", "resume", "grace_seconds", "max_seconds"),
        *("log_seconds", "on_usr1", "mirror"),
        *("checkpoint_every", "keep_checkpoints", "profile"),
        *("data.data_dir", "data.cache_dir", "data.cache_gigabytes", "data.threads"),
        *("devices.parallel", "devices.num_devices", "devices.distributed"),
        *("devices.coordinator_address", "devices.num_processes", "devices.process_id"),
        "devices.initialization_timeout",
    }
)
CHECKSUM = "_sha256"  # At the end of the names of checksums in ``Dataset.record``.


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return, field by field, in what two configurations differ that must not when resuming.

    Args:
        before: ``to_dict`` of the one that the run was started with, maybe through JSON.
        now: That of the other.

    Example:
        >>> before = to_dict(TrainConfig(run_dir="a"))
        >>> differences(before, to_dict(TrainConfig(run_dir="b", seeds=(4,))))
        ['seeds: (0, 1, 2) before, (4,) now']
    """
    before, now = (flatten(to_dict(from_dict(values))) for values in (before, now))
    return [
        f"{name}: {before[name]} before, {now[name]} now"
        for name in now
        if name not in FREE_FIELDS and before[name] != now[name]
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with names joined by dots.

    Example:
        >>> flatten({"seeds": 1, "optim": {"epochs": 3}})
        {'seeds': 1, 'optim.epochs': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def check_resumable(before: dict[str, Any], config: TrainConfig, where: Path) -> None:
    """Raise ``ValueError`` unless a run started with ``before`` may go on with ``config``."""
    different = differences(before, to_dict(config))
    if different:
        raise ValueError(
            f"the run in {where} was started with another configuration, and would not be one "
            "run:\n  " + "\n  ".join(different) + "\nGive the same options to resume it, or "
            "another --run-dir for a run of its own."
        )


def identity(data: dict[str, Any]) -> dict[str, Any]:
    """Return of ``Dataset.record()`` what tells one data set from another.

    The images that were found to be bad in training do not; nor, where there are checksums, does
    the name (of an image folder, say).
    """
    free = {"name"} if any(name.endswith(CHECKSUM) for name in data) else set()
    return {
        name: value
        for name, value in data.items()
        if not name.startswith("bad_images") and name not in free
    }
