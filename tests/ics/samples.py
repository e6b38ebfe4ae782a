"""What tests of distances between samples have in common."""

import numpy as np
from hypothesis import strategies as st

KINDS = st.sampled_from(["gaussian", "heavy", "discrete", "degenerate"])
RELATIONS = st.sampled_from(["independent", "drift", "tiny", "permuted", "shifted", "same"])


def assert_certified(distance, truth):
    value, lower, upper, _ = (float(field) for field in distance)
    # The oracle's own error: 1e-14.
    assert lower <= truth * (1 + 1e-14), (lower, truth)
    assert truth * (1 - 1e-14) <= upper, (truth, upper)
    assert lower <= value <= upper


def swapped():
    """Pairing not optimal: two points exchanged."""
    x = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]], np.float32)
    return x, x[[1, 0, 2]] + np.float32(0.125)
