"""Collectives counted in compiled programs, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.pod_check.collectives import Collective, collectives, count, total_bytes

AXIS = "d"


def compiled_text(function, *shapes, out_specs=None):
    out_specs = P(AXIS) if out_specs is None else out_specs
    mesh = jax.make_mesh((8,), (AXIS,), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=P(AXIS), out_specs=out_specs, check_vma=False
    )
    arguments = [jnp.zeros(shape, jnp.float32) for shape in shapes]
    return jax.jit(mapped).lower(*arguments).compile().as_text()


@pytest.mark.parametrize(
    ("function", "kind", "size"),
    [
        # Every device has 2 x 16 float32: 128 bytes.
        (lambda x: jax.lax.psum(x, AXIS), "all-reduce", 128),
        (lambda x: jax.lax.all_gather(x, AXIS, tiled=True), "all-gather", 8 * 128),
        (lambda x: jax.lax.ppermute(x, AXIS, [(0, 1), (1, 0)]), "collective-permute", 128),
        (
            lambda x: jax.lax.psum_scatter(x, AXIS, scatter_dimension=1, tiled=True),
            "reduce-scatter",
            128,
        ),
        (
            lambda x: jax.lax.all_to_all(x, AXIS, split_axis=1, concat_axis=0, tiled=True),
            "all-to-all",
            128,
        ),
    ],
)
def test_each_kind_and_its_bytes(function, kind, size):
    found = collectives(compiled_text(function, (16, 16)))
    assert found == [Collective(kind, size, times=1, guarded=False)]


def test_loops_and_branches():
    def function(x, y):
        def body(total, _):
            return total + jax.lax.psum(x * total.sum(), AXIS), None

        total, _ = jax.lax.scan(body, x, None, length=3)
        first = jax.lax.psum(jnp.sum(total), AXIS)
        return jax.lax.cond(first > 1, lambda: jax.lax.pmax(y, AXIS) + total[0, :1], lambda: y)

    found = collectives(compiled_text(function, (8, 4), (8,)))
    assert sorted(found) == [
        Collective("all-reduce", 4, 1, False),  # the scalar
        Collective("all-reduce", 4, 1, True),  # y in the branch, one number per device
        Collective("all-reduce", 16, 3, False),  # x in the loop
    ]
    assert count(found) == 4
    assert total_bytes(found) == 4 + 3 * 16


# As the compilers write what a small program does not show: tuples, half precision, operations
# that are started and awaited, and loops of unknown length.
PROGRAM = """HloModule jit_step, entry_computation_layout={...}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%wrapped (p: bf16[8]) -> bf16[8] {
  %p = bf16[8]{0} parameter(0)
  ROOT %inner = bf16[8]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]) parameter(0)
  %x = f32[4]{0} get-tuple-element(%t), index=1
  %r = f32[4]{0} all-reduce(%x), to_apply=%add
  ROOT %next = (s32[], f32[4]) tuple(%x, %r)
}

%condition (t: (s32[], f32[4])) -> pred[] {
  %t = (s32[], f32[4]) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (p0: f32[2,3], p1: bf16[8]) -> f32[2,3] {
  %p0 = f32[2,3]{1,0:T(8,128)} parameter(0)
  %p1 = bf16[8]{0} parameter(1)
  %pair = (f32[2,3]{1,0}, bf16[8]{0}) all-reduce(%p0, %p1), to_apply=%add
  %start = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%p1), dimensions={0}
  %done = bf16[64]{0} all-gather-done(%start)
  %reduce = f32[2,3]{1,0} all-reduce-start(%p0), to_apply=%add
  %reduced = f32[2,3]{1,0} all-reduce-done(%reduce)
  %fused = bf16[8]{0} fusion(%p1), kind=kLoop, calls=%wrapped
  %init = (s32[], f32[4]) tuple(%p0, %p0)
  %loop = (s32[], f32[4]) while(%init), condition=%condition, body=%body
  ROOT %copy = f32[2,3]{1,0} copy(%p0)
}
"""


def test_what_compilers_write():
    assert collectives(PROGRAM) == [
        Collective("all-reduce", 24 + 16, 1, False),
        Collective("all-gather", 128, 1, False),
        Collective("all-reduce", 24, 1, False),
        Collective("all-reduce", 16, 1, False),
        Collective("all-reduce", 16, 1, False),
    ]


def test_known_length_of_a_loop():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"5"},"other":1}'
    found = collectives(PROGRAM.replace("body=%body", known))
    assert found[-1] == Collective("all-reduce", 16, 5, False)


def test_not_a_program():
    with pytest.raises(ValueError, match="`program` has no ENTRY computation"):
        collectives("HloModule empty")
