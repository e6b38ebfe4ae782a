"""Repack golden vectors into one file: `python tests/golden/repack.py layer` (or kalman, ...).

Reads the folder of that name in `shared/golden` beside the repository and writes NAME.npz. Values
exactly representable in float32 are stored so; the others as float64 rounded to 36 bits of
mantissa (each value within 8e-12 of itself). Bytes are stored by significance: they compress
better.
"""

import json
import sys
from pathlib import Path

import numpy as np

# In the index, or needed by no test.
DROPPED = {"layer": ("config_json", "epsilon", "momentum", "shadow_"), "kalman": ("init_names",)}
# The first half alone: what the second makes of it is checked.
DROPPED["bcn"] = ("train_y_bn", *(f"r0.1_t{step}_y_bn" for step in range(5)))
# After 5 cycles there is little that is not seen after 2 or 50.
DROPPED["enorm"] = ("c1_p2_s5_", "c1.2_p2_s5_", "c1_p1_s5_", "c1.2_p1_s5_")
name = sys.argv[1]
here = Path(__file__).resolve().parent
source = here.parents[2] / "shared" / "golden" / name


def round_mantissa(a: np.ndarray) -> np.ndarray:
    return ((a.view(np.int64) + (1 << 15)) >> 16 << 16).view(np.float64)


index, blobs = json.loads((source / "index.json").read_text()), {"f4": b"", "f8": b""}
index = index.get("cases", index)
for case_name, case in index.items():
    case["arrays"] = {}
    with np.load(source / f"{case_name}.npz") as arrays:
        for key in (k for k in arrays.files if not k.startswith(DROPPED.get(name, ()))):
            value = np.ascontiguousarray(arrays[key])
            exact = np.array_equal(value, value.astype(np.float32).astype(np.float64))
            kind = "f4" if exact else "f8"
            blobs[kind] += (value.astype(np.float32) if exact else round_mantissa(value)).tobytes()
            case["arrays"][key] = [kind, *value.shape]
    case.pop("keys", None)
planes = {k: np.frombuffer(b, np.uint8).reshape(-1, int(k[1])).T for k, b in blobs.items()}
np.savez_compressed(here / f"{name}.npz", index=np.array(json.dumps(index)), **planes)
