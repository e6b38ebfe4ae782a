"""The mean of the layer's benchmark."""

import math

import pytest

from experiments.bench.layer import LayerRow, geometric_mean


def test_geometric_mean_is_of_shapes_with_positions():
    rows = [
        LayerRow(shape, "float32", passes, 1.0, 20, {"naive": (ratio, ratio, ratio)}, {})
        for shape, passes, ratio in [
            ((8, 4, 4, 2), "forward", 2.0),
            ((2, 3, 3, 2), "forward", 0.25),
            ((2, 3, 3, 2), "forward+backward", 3.0),
            ((16, 5), "forward", 4.0),
        ]
    ]
    mean = geometric_mean(rows, "naive", "forward", "float32")
    assert mean == pytest.approx(math.sqrt(2.0 * 0.25))
    assert math.isnan(geometric_mean(rows, "naive", "forward", "bfloat16"))
