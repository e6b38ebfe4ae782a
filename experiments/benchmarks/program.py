"""What a compiled program moves, and what autodiff keeps."""

import contextlib
import io
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import print_saved_residuals

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(?:,|$)")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_NO_TRAFFIC = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "optimization-barrier",
    "reshape",
}


def _elements(shape: str) -> list[int]:
    found = _SHAPE.findall(shape)
    return [math.prod(int(n) for n in dims.split(",") if n) if dims else 1 for dims in found]


def traffic(program: str, size: int) -> tuple[int, int]:
    """Return reads and writes of arrays of ``size`` elements by a compiled program.

    Every instruction outside of fusions counts once for each such operand, and for each such
    result. Of a conditional, branch 0 counts: ``lax.cond`` puts there what is usually executed.

    Args:
      program: text of the optimized program (``compiled.as_text()``).
      size: number of elements of the arrays that count.

    Returns:
      (reads, writes).
    """
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            words = line.split()
            name = "ENTRY" if words[0] == "ENTRY" else words[0].lstrip("%")
            bodies[name] = []
        elif name:
            bodies[name].append(line)

    def count(body: str) -> tuple[int, int]:
        reads = writes = 0
        sizes: dict[str, list[int]] = {}
        for line in bodies[body]:
            match = _INSTRUCTION.match(line)
            if match is None:
                continue
            result, shape, operation, operands = match.groups()
            sizes[result] = _elements(shape)
            if operation == "conditional":
                branches = re.search(r"branch_computations=\{%?([\w.\-]+)", line)
                more = count(branches[1]) if branches else (0, 0)
                reads, writes = reads + more[0], writes + more[1]
            elif operation not in _NO_TRAFFIC:
                used = re.findall(r"%([\w.\-]+)", operands)
                reads += sum(sizes.get(operand, []).count(size) for operand in used)
                writes += sizes[result].count(size)
        return reads, writes

    return count("ENTRY")


def kept(function: Callable[..., Any], *args: Any, size: int) -> float:
    """Bytes that reverse mode keeps in floating-point arrays of ``size`` elements.

    Arguments do not count, nor do masks (booleans) and constants (of ``jax.nn.relu``).
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_saved_residuals(function, *args)
    total = 0
    for line in text.getvalue().splitlines():
        dtype, origin = line.split("[")[0], line.split("] ", 1)[-1]
        counts = _elements(line)[0] == size and not dtype.startswith("bool")
        if counts and not origin.startswith(("from the argument", "output of broadcast_in_dim")):
            total += size * jax.numpy.dtype(_DTYPES[dtype]).itemsize
    return float(total)


_DTYPES = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
