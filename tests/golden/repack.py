"""Repack the authors' layer vectors into one file: `python tests/golden/repack.py`.

Reads `shared/golden/layer` beside the repository and writes `layer.npz`. Values exactly
representable in float32 are stored so; the others as float64 rounded to 36 bits of mantissa
(each value within 8e-12 of itself). Bytes are stored by significance: they compress better.
"""

import json
from pathlib import Path

import numpy as np

DROPPED = ("config_json", "epsilon", "momentum", "shadow_")  # in the index, or needed by no test
here = Path(__file__).resolve().parent
source = here.parents[2] / "shared" / "golden" / "layer"


def round_mantissa(a: np.ndarray) -> np.ndarray:
    return ((a.view(np.int64) + (1 << 15)) >> 16 << 16).view(np.float64)


index, blobs = json.loads((source / "index.json").read_text()), {"f4": b"", "f8": b""}
for name, case in index.items():
    case["arrays"] = {}
    with np.load(source / f"{name}.npz") as arrays:
        for key in (k for k in arrays.files if not k.startswith(DROPPED)):
            value = np.ascontiguousarray(arrays[key])
            exact = np.array_equal(value, value.astype(np.float32).astype(np.float64))
            kind = "f4" if exact else "f8"
            blobs[kind] += (value.astype(np.float32) if exact else round_mantissa(value)).tobytes()
            case["arrays"][key] = [kind, *value.shape]
    del case["keys"]
planes = {k: np.frombuffer(b, np.uint8).reshape(-1, int(k[1])).T for k, b in blobs.items()}
np.savez_compressed(here / "layer.npz", index=np.array(json.dumps(index)), **planes)
