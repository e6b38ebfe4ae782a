"""Tables of stored benchmarks, from files as the benchmarks write them."""

import dataclasses
import json
import math

import pytest

from experiments.bench.layer import LayerRow, geometric_mean
from experiments.bench.probe import DistanceRow, ShareRow
from experiments.bench.seeds import SeedsRow
from experiments.bench.tables import bench_tables
from experiments.bench.tpu import TpuRow
from experiments.readme import tables_of


def stored(command, rows):
    """As ``--json`` writes it."""
    as_dicts = json.dumps(
        {"command": [command, "--seconds", "2"], "versions": {}, "rows": rows},
        default=dataclasses.asdict,
    )
    return json.loads(as_dicts)


def cells(table):
    return list(table.cells())


def test_layer():
    ratios = {"BatchNorm": (1.0, 1.0, 1.0), "naive": (2.0, 1.9, 2.25), "a x + b": (0.5, 0.4, 0.6)}
    rows = [
        LayerRow(shape, "float32", passes, 4.5, 20, ratios, {})
        for passes in ("forward", "forward+backward")
        for shape in ((8, 4, 4, 2), (16, 5))
    ]
    quick = {name: tuple(x / 8 for x in values) for name, values in ratios.items()}
    rows.append(LayerRow((2, 3, 3, 2), "float32", "forward+backward", 1.0, 20, quick, {}))
    made = bench_tables(stored("layer", {"time": rows, "kept": {}}))
    assert list(made) == ["forward_backward", "forward"]
    table = made["forward_backward"]
    assert cells(table)[0] == ["8x4x4x2", "float32", "4.50", "2.00 (1.90-2.25)", "0.50 (0.40-0.60)"]
    mean = geometric_mean(rows, "naive", "forward+backward", "float32")
    assert mean == pytest.approx(math.sqrt(2.0 * 0.25))
    last = ["geometric mean, rank 4", "float32", "-", f"{mean:.2f}", f"{mean / 4:.2f}"]
    assert cells(table)[-1] == last


def test_tpu():
    rows = [
        TpuRow(layer, "bfloat16", 28, 128, size, 0.0, {"all-reduce": 5}, 0, 8_210_000, 1.0)
        for layer, size in (("BatchNorm", 2e6), ("UnitizedBatchNorm", 2.5e6))
    ]
    (table,) = tables_of(stored("tpu", rows)).values()
    row = cells(table)[1]
    assert row[:5] == ["28x28x128", "bfloat16", "UnitizedBatchNorm", "2.5", "1.250"]
    assert row[5:] == ["5 all-reduce", "0", "8.2"]


def test_probe():
    ms = {"ours": 0.5, "scipy": 1.0, "Sinkhorn": None}
    ratios = {"scipy": (2.0, 1.9, 2.1)}
    distance = DistanceRow(64, 16, "drift", 0.25, ms, ratios, 4.8e-6, 0.01)
    share = ShareRow("small", 10, 16, 8.0, 4.0, 0.05)
    made = bench_tables(stored("probe", {"distance": [distance], "share": [share]}))
    assert cells(made["distance"]) == [
        ["64", "16", "drift", "0.25", "0.50", "1.00 (2.0)", "-", "4.8e-06"],
    ]
    assert cells(made["share"]) == [["small", "8.0", "16", "4.0", "10", "5.0"]]


def test_seeds_and_what_has_no_tables():
    row = SeedsRow("bn", 5, 64, 50.0, 25.0, (0.5, 0.45, 0.55))
    (table,) = bench_tables(stored("seeds", [row])).values()
    assert cells(table) == [["bn", "64", "5", "50.00", "25.00", "0.50 (0.45-0.55)"]]
    with pytest.raises(ValueError, match=r"benchmark \(='data'\) has no tables; choose from layer"):
        bench_tables(stored("data", []))
