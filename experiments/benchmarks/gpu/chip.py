"""Chips to compile for, described in files beside this one."""

import tomllib
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies


def describe(chip: str) -> dict[str, Any]:
    """Return the figures of a chip.

    Raises:
        ValueError: If there is no description of it.
    """
    folder = Path(__file__).parent
    path = folder / f"{chip}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.toml")))
        raise ValueError(f"chip (={chip!r}) has no description; choose from {known}.")
    return tomllib.loads(path.read_text())


def gpu_devices(chip: str, count: int) -> list[jax.Device]:
    """Return the GPUs of one machine to compile for; needs the compiler, but no GPU."""
    return list(
        topologies.get_topology_desc(
            platform="cuda",
            target_config=_target(describe(chip)),
            topology=f"1x1x{count}",  # slices, machines, GPUs of a machine
        ).devices
    )


def _target(chip: dict[str, Any]) -> str:
    """Return a description as the compiler reads it, a protocol buffer in text."""
    memory, core, block, software = (
        chip[part] for part in ("memory", "multiprocessors", "block", "software")
    )
    device: dict[str, Any] = {
        "name": _quoted(chip["name"]),
        "platform_version": _quoted(f"Compute Capability {chip['compute_capability']}.0a"),
        "device_memory_size": memory["bytes"],
        "memory_bandwidth": memory["bytes_per_second"],
        "l2_cache_size": memory["l2_bytes"],
        "core_count": core["count"],
        "clock_rate_ghz": core["ghz"],
        "fpus_per_core": core["lanes"],
        "threads_per_core_limit": core["threads"],
        "registers_per_core_limit": core["registers"],
        "shared_memory_per_core": core["shared_bytes"],
        "threads_per_block_limit": block["threads"],
        "registers_per_block_limit": block["registers"],
        "shared_memory_per_block": block["shared_bytes"],
        "shared_memory_per_block_optin": block["shared_bytes_on_request"],
        "driver_version": _quoted(software["driver"]),
        "runtime_version": _quoted(software["cuda"]),
        "compile_time_toolkit_version": _quoted(software["cuda"]),
        "dnn_version": _quoted(".".join(map(str, software["cudnn"]))),
        # The same for all of CUDA.
        "threads_per_warp": 32,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "device_address_bits": 64,
    }
    capability = f"major: {chip['compute_capability']} feature_extension: ACCELERATED_FEATURES"
    fields = [f"{name}: {value}" for name, value in device.items()]
    fields.append(f"cuda_compute_capability {{ {capability} }}")
    dnn = zip(("major", "minor", "patch"), software["cudnn"], strict=True)
    return "\n".join(
        [
            "gpu_device_info {",
            *fields,
            "}",
            'platform_name: "CUDA"',
            f"dnn_version_info {{ {' '.join(f'{part}: {number}' for part, number in dnn)} }}",
            f"device_description_str: {_quoted(chip['name'])}",
        ]
    )


def _quoted(text: str) -> str:
    return f'"{text}"'
