"""How large the networks are, in one short table."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from experiments.common.table import Column, Table
from experiments.training.program import Program


def overview(programs: Sequence[Program], states: Sequence[Any]) -> Table:
    """Return the number of parameters of each network, by stage, and their bytes.

    Args:
        programs: One per norm.
        states: A state of each, or its shapes.
    """
    counts: list[dict[str, int]] = []
    sizes: list[int] = []
    for program, state in zip(programs, states, strict=True):
        stages = _stages(program.model)
        count: dict[str, int] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            stage = stages.get(path[0].key) or path[0].key.partition("_")[0]
            count[stage] = count.get(stage, 0) + leaf.size
        counts.append(count)
        sizes.append(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params)))
    known = {stage: None for count in counts for stage in count}
    columns = (Column("parameters"), *(Column(p.norm, "{:,.0f}") for p in programs))
    rows: list[tuple[Any, ...]] = [
        (stage, *(count.get(stage) for count in counts)) for stage in sorted(known, key=_place)
    ]
    rows.append(("all", *(sum(count.values()) for count in counts)))
    rows.append(("bytes", *sizes))
    return Table("parameters", "", "", columns, rows)


def _stages(model: Any) -> dict[str, str]:
    """Return the stage of each block, by its name."""
    ends = list(itertools.accumulate(getattr(model, "blocks", ())))
    return {
        f"block_{i}": f"stage {1 + sum(i >= end for end in ends)}"
        for i in range(ends[-1] if ends else 0)
    }


def _place(stage: str) -> tuple[int, str]:
    return {"stem": 0, "head": 2}.get(stage, 1), stage
