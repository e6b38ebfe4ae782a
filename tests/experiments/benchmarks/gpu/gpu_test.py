"""``bench gpu``: what it reads in a compiler's dumps; on the compiler itself where there is one."""

import json
import math
import re

import jax
import pytest

from experiments.benchmarks.gpu import rows as gpu_rows
from experiments.benchmarks.gpu.cases import GROUPS, Case, lower
from experiments.benchmarks.gpu.chip import describe
from experiments.benchmarks.gpu.read import instructions_of, steps_of, summarize
from experiments.benchmarks.options import Gpu, Tpu
from experiments.publish import tables_of

needs_compiler = pytest.mark.skipif(
    not gpu_rows.ENVIRONMENT.exists(), reason="no .venv-gpu: make gpu-compile"
)
PROGRAM = """\
HloModule jit_f

%fused (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %n = f32[4,8]{1,0} negate(%p)
}

ENTRY %main (x: f32[4,8], k: pred[8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %k = pred[8]{0} parameter(1)
  %loop = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"reification_cost":\
[{"end_to_end_cycles":3,"exec_time_us":2.5}]}
  %conv = (f32[4,8]{1,0}, u8[0]{0}) custom-call(%loop, %k)
  %own = bf16[4,8]{1,0} custom-call(%loop)
  %rare = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %last = f32[4,8]{1,0} copy(%loop)
}
"""
STEPS = """\
001: kCustomKernel  [source] loop grid: [1, 1, 1] threads: [32, 1, 1]
000: kCommandBuffer [prev=001]
    002: kConvolution [source] kConvolution
    003: kConditional [prev=002]
      false_branch:
        004: kCustomKernel [source] rare grid: [1, 1, 1]
      true_branch:
        005: kCopy [source] kCopy
006: kConditional   [prev=000]
  false_branch:
    007: kAllReduceStart [source] a
  true_branch:
008: kKernel        [prev=006] own
"""
NAMES = {1: "loop", 2: "conv", 3: "c", 4: "rare", 5: "last", 6: "d", 7: "a", 8: "own"}
METADATA = "".join(
    f'thunk_info {{ profile_annotation: "{name}" thunk_id: {i} }}' for i, name in NAMES.items()
)


def test_a_program():
    """Rare branches do not count; a kernel without a model takes its bytes over the bandwidth."""
    steps = steps_of(STEPS, METADATA)
    assert [(s.name, s.rare, s.in_graph) for s in steps] == [
        *(("loop", False, False), ("conv", False, True), ("c", False, True)),
        *(("rare", True, True), ("last", False, True), ("d", False, False)),
        *(("a", True, False), ("own", False, False)),
    ]
    assert "n" not in instructions_of(PROGRAM)
    found = summarize(PROGRAM, steps, 32, bandwidth=192e6, peak=7)
    assert (found.kernels, found.copies, found.products) == (2, 1, 1)
    assert (found.conditionals, found.in_graphs, found.host_round_trips) == (2, 1, 1)
    # loop, convolution with its 8 predicates, own in half precision, copy.
    assert (found.reads, found.writes) == (4, 4)
    assert found.bytes == (128 + 128) + (128 + 8 + 128) + (128 + 64) + (128 + 128)
    assert found.model_us == pytest.approx(2.5 + 1.0)
    assert found.time_us == pytest.approx(2.5 + 1.0 + 3)
    assert (found.collectives, found.large_bytes, found.peak_bytes) == (1, 0, 7)


def row(norm, scale, kind="chain", **more):
    case = Case(kind, (32, 56, 56, 64), "float32", 1, norm)
    program = summarize(PROGRAM, steps_of(STEPS, METADATA), 32, 192e6, 7)
    made = gpu_rows.make_row(case, program, 1.5)
    return made | {name: scale * made[name] for name in ("bytes", "time_us")} | more


def test_tables():
    names = {"BatchNorm": 1, "UnitizedBatchNorm": 0.5}
    rows = [row(norm, scale, measured_us=9, ratio=(1, 1, 1)) for norm, scale in names.items()]
    made = tables_of(json.loads(json.dumps({"benchmark": "gpu", "rows": rows})))
    assert list(made) == ["gpu", "targets", "measured"]
    ours = list(made["gpu"].cells())[1]
    assert ours[:6] == ["chain", "32x56x56x64", "float32", "1", "UnitizedBatchNorm", "2 + 1"]
    assert ours[6:] == ["4R 4W", "0.0", "0.50", "3.2", "0.50", "2 (1)", "1", "1.5"]
    summary = ["chain", "1", "1", "0.500 (0.500)", "0.500 (0.500)", "1.000 (1.000)", "1"]
    assert list(made["targets"].cells()) == [summary]


def test_programs_are_lowered_for_any_devices():
    """Every kind, here for the CPUs; of each part of a batch as much on every device."""
    for kind, shape in (("layer", (2, 4, 4, 3)), ("chain", (2, 4, 4, 3)), ("dense", (4, 3))):
        lowered, built = lower(
            Case(kind, shape, "bfloat16", 2, "UnitizedBatchNorm"), jax.devices()[:2]
        )
        assert built.size == math.prod(shape)
        assert f"tensor<{2 * shape[0]}x" in lowered.as_text()
    call = gpu_rows.caller(lowered.compile(), built, again=False)
    assert jax.tree.leaves(call())


def test_messages(monkeypatch, tmp_path):
    case = Case("layer", (2, 3), "float32", 1, "BatchNorm")
    with pytest.raises(ValueError, match=r"`measure` needs GPUs .*: 1 of them, and there are 0"):
        gpu_rows.measured_rows(case, 0.0)
    with pytest.raises(ValueError, match=r"chip \(='h1'\) has no description; choose from h100"):
        describe("h1")
    with pytest.raises(ValueError, match=r"`cases` \(='chains'\) is unknown"):
        Gpu(cases=("chains",))
    with pytest.raises(ValueError, match="`cases` is empty"):
        Gpu(cases=())
    with pytest.raises(ValueError, match="`images` and `rows` are both empty"):
        Tpu(images=(), rows=())
    with pytest.raises(ValueError, match=r"`dtypes` \(='float33'\) is unknown"):
        Tpu(dtypes=("float33",))
    monkeypatch.setattr(gpu_rows, "ENVIRONMENT", tmp_path / ".venv-gpu")
    with pytest.raises(ValueError, match=r"there is no .venv-gpu; `make gpu-compile` makes it"):
        next(gpu_rows.compiled_rows([case], "h100"))


@needs_compiler
def test_a_small_layer_is_compiled():
    cases = [
        Case("layer", (16, 8, 8, 16), "float32", devices, "UnitizedBatchNorm") for devices in (1, 2)
    ]
    for found in gpu_rows.compiled_rows(cases, "h100"):
        assert found["kernels"] > 5
        assert found["conditionals"] == 1
        assert found["host_round_trips"] == 0
        assert found["reads"] >= 4
        assert found["model_us"] > 0


def test_groups_have_cases_of_one_network_each():
    assert set(GROUPS) == {"layer", "chain", "others", "dense", "resnet50", "resnet110"}
    assert len(GROUPS["others"]) == 8
    assert all(re.fullmatch(r"float32|bfloat16", dtype) for g in GROUPS.values() for *_, dtype in g)
