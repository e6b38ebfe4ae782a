"""Tables of stored benchmarks, from files as the benchmarks write them."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.benchmarks import compiling, eager, first_call, measures, step
from experiments.benchmarks.data import Row
from experiments.benchmarks.distance import DistanceRow
from experiments.benchmarks.first_call import FirstCallRow
from experiments.benchmarks.layer import LayerRow
from experiments.benchmarks.options import Compile, Measures, Seeds, Step
from experiments.benchmarks.seeds import SeedsRow
from experiments.benchmarks.share import RunRow, ShareRow
from experiments.benchmarks.step import StepRow
from experiments.benchmarks.tables import bench_tables
from experiments.benchmarks.tpu import TpuRow
from experiments.publish import tables_of


def stored(benchmark, rows):
    """As ``--json`` writes it."""
    as_dicts = json.dumps(
        {"benchmark": benchmark, "command": "", "versions": {}, "rows": rows},
        default=dataclasses.asdict,
    )
    return json.loads(as_dicts)


def cells(table):
    return list(table.cells())


def test_layer():
    traffic = {"BatchNorm": (11, 4), "naive": (23, 9)}
    ratios = {"BatchNorm": (1.0, 1.0, 1.0), "naive": (2.0, 1.9, 2.25), "a x + b": (0.5, 0.4, 0.6)}
    rows = [
        LayerRow(shape, "float32", passes, 4.5, 20, ratios, traffic)
        for passes in ("forward", "forward+backward")
        for shape in ((8, 4, 4, 2), (16, 5))
    ]
    quick = {name: tuple(x / 8 for x in values) for name, values in ratios.items()}
    rows.append(LayerRow((2, 3, 3, 2), "float32", "forward+backward", 1.0, 20, quick, traffic))
    kept = {"float32": {"BatchNorm": 3.0, "UnitizedBatchNorm": 2.0}}
    made = bench_tables(stored("layer", {"time": rows, "kept": kept}))
    assert list(made) == ["forward_backward", "forward", "traffic", "kept"]
    table = made["forward_backward"]
    assert cells(table)[0] == ["8x4x4x2", "float32", "4.50", "2.00 (1.90-2.25)", "0.50 (0.40-0.60)"]
    # Of the shapes with positions: 2 and an eighth of it.
    assert cells(table)[-1] == ["geometric mean, rank 4", "float32", "-", "0.71", "0.18"]
    assert cells(made["traffic"])[1] == ["16x5", "float32", "forward", "11R 4W", "23R 9W"]
    assert cells(made["kept"]) == [["float32", "3.00", "2.00"]]
    # 15 arrays of 8 * 4 * 4 * 2 numbers of 4 bytes in 4.5 ms; 32 in twice the time.
    copied = stored("layer", {"time": rows[:1], "kept": kept, "copy_rate": 1e7})
    assert cells(bench_tables(copied)["bandwidth"]) == [
        ["8x4x4x2", "float32", "forward", "0 (34 %)", "0 (36 %)"]
    ]
    fast = LayerRow((1024, 1024, 256), "bfloat16", "forward", 4.5, 20, ratios, traffic)
    copied = stored("layer", {"time": [fast], "kept": kept, "copy_rate": 2e12})
    table = bench_tables(copied)["bandwidth"]
    assert cells(table)[0][3:] == ["1,790 (89 %)", "1,909 (95 %)"]
    assert "the copy: 2,000 GB/s" in table.caption


def test_tpu():
    rows = [
        TpuRow(
            layer, "bfloat16", (64, 28, 28, 128), size, 0.0, {"all-reduce": 5}, 0, 8_210_000, 1.0
        )
        for layer, size in (("BatchNorm", 2e6), ("UnitizedBatchNorm", 2.5e6))
    ]
    (table,) = tables_of(stored("tpu", rows)).values()
    row = cells(table)[1]
    assert row[:5] == ["64x28x28x128", "bfloat16", "UnitizedBatchNorm", "2.5", "1.250"]
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
    alone = ["small", "8.0", "16", "4.0", "10", "5.0"]
    assert cells(made["share"]) == [alone]  # As stored before runs were measured.
    run = RunRow("ubn", 10, 16, 8.0, 2.0, (0.03, -0.01, 0.0625), 12, 110)
    rows = {"distance": [distance], "share": [share], "run": [run]}
    table = tables_of(stored("probe", rows))["share"]
    (first, second) = cells(table)
    assert first == [*alone, "-", "-"]
    assert second[:6] == ["digits run, UnitizedBatchNorm", "8.0", "16", "2.0", "10", "2.5"]
    assert second[6:] == ["3.0 (-1.0 to 6.2)", "12"]
    assert table.caption.endswith("median and quartiles of blocks of 110 updates")
    parts = [FirstCallRow("forward pass", 1.0, 2.0, 1.0), FirstCallRow("measuring", 0.5, 4.0, 1.5)]
    *_, parts_table = bench_tables(stored("probe", {**rows, "first": parts})).values()
    assert cells(parts_table) == [
        ["forward pass", "1.00", "2.00", "1.00"],
        ["measuring", "0.50", "4.00", "1.50"],
    ]


@pytest.mark.slow
def test_parts_of_a_first_call():
    rows = first_call.measure(32, 4)
    assert rows[0].part == "forward pass"
    assert all(row.trace_s > 0 and row.compile_s > 0 for row in rows)
    whole, parts = rows[-1], rows[1:-1]
    assert whole.compile_s == pytest.approx(sum(row.compile_s for row in parts))


def test_data():
    row = Row("records", "224x224, 16", "one", 2000.0, 500.0, 450.0, 0.125)
    (table,) = bench_tables(stored("data", [row])).values()
    assert cells(table) == [["records", "224x224, 16", "one", "2,000", "500", "4.0", "450", "12.5"]]


def test_seeds():
    row = SeedsRow("bn", 5, 64, 50.0, 25.0, (0.5, 0.45, 0.55))
    (table,) = bench_tables(stored("seeds", [row])).values()
    assert cells(table) == [["BatchNorm", "64", "5", "50.00", "25.00", "0.50 (0.45-0.55)"]]


def test_step():
    ratios = {"ubn": (0.9, 0.85, 0.95), "none": (0.8, 0.75, 0.85)}
    row = StepRow("resnet18", "float32", 128, 526.4, 20, ratios)
    (table,) = bench_tables(stored("step", [row])).values()
    assert cells(table) == [
        ["resnet18", "float32", "128", "526.4", "0.90 (0.85-0.95)", "0.80 (0.75-0.85)"]
    ]


def test_eager():
    rows = [eager.measure((2, 3), call, 0.0) for call in eager.CALLS]
    assert all(row.rounds >= 15 and row.base_ms > 0 for row in rows)
    (table,) = bench_tables(stored("eager", rows)).values()
    assert [row[:2] for row in cells(table)] == [["2x3", call] for call in eager.CALLS]


def test_compile():
    row = compiling.CompileRow("digits", 16, 4.0, 5, {"ubn": (1.4, 1.3, 1.5)})
    (table,) = bench_tables(stored("compile", [row])).values()
    assert table.columns[-1].name == "UnitizedBatchNorm"
    assert cells(table) == [["digits", "16", "4.0", "1.40 (1.30-1.50)"]]


def test_measures():
    ratios = {"mmd": (1.2, 1.1, 1.3)}
    row = measures.MeasuresRow("digits", 8, 16, 9.0, 4.9, (0.5, 0.4, 0.6), 20, ratios)
    (table,) = bench_tables(stored("measures", [row])).values()
    expected = ["digits", "8", "16", "9.0", "4.9", "0.50 (0.40-0.60)", "1.20 (1.10-1.30)"]
    assert cells(table) == [expected]


@pytest.mark.slow
def test_compiling_and_measuring_are_measured():
    row = compiling.measure("digits", ("ubn", "none"), 8, 2)
    assert (row.network, row.batch_size, row.rounds) == ("digits", 8, 2)
    ratio, least, most = row.ratios["none"]
    assert 0 < least <= ratio <= most
    probed = measures.measure("digits", ("moments",), 8, 4, 0.0)
    assert (probed.images, probed.layers) == (4, 8)
    assert probed.added[0] > 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Compile, {"networks": ()}, "`networks` is empty"),
        (Compile, {"networks": ("digit",)}, r"`networks` \(='digit'\).*Did you mean digits"),
        (Step, {"networks": ("resnet9",)}, r"`networks` \(='resnet9'\) is unknown"),
        (Step, {"norms": ("unb",)}, r"norm.*unb.*ubn"),
        (Compile, {"norms": ("bn+wz",)}, "choose from ws"),
        (Seeds, {"norms": ("bm",)}, r"norm.*bm"),
        (Measures, {"images": (0,)}, r"`images` \(=0\) must be a positive"),
        (Measures, {"images": ()}, "`images` is empty"),
        (Measures, {"measures": ("mdm",)}, r"`measures` \(='mdm'\) is unknown"),
    ],
)
def test_bad_options_are_told_before_any_work(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_images_to_time_with_differ():
    for network in ("digits", "resnet18"):
        images = step.batch_of(step.recipe_of(network, 8).dataset, 8)["image"]
        assert len(np.unique(images)) > 8


@pytest.mark.slow
def test_step_is_measured():
    row = step.measure("digits", ("ubn",), "bfloat16", 8, 0.0)
    assert (row.network, row.precision, row.batch_size) == ("digits", "bfloat16", 8)
    assert row.rounds >= 15
    assert row.base_ms > 0
    assert list(row.ratios) == ["ubn"]
    with pytest.raises(
        ValueError, match=r"network \(='resnet9'\) is unknown; choose from digits, re"
    ):
        step.measure("resnet9", (), "float32", 8, 0.0)
