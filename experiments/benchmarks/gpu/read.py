"""What a compiled GPU program runs: kernels, what they move, and how long the compiler says.

The compiler's account has two halves. The optimized program names every kernel's operands and
results, with the modelled time; the dump of the runtime's steps says which of them are launched one
by one, which are part of a CUDA graph, and which are in a branch.
"""

import dataclasses
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

LARGE = 5e6  # Bytes that a kernel moves; below that launches, not memory, are what it costs.
LAUNCH_US = 1.0  # Of a kernel or copy inside a CUDA graph; the compiler's model leaves it out.

_SHAPE = re.compile(r"\b([a-z]+\d*)\w*\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(?:,|$)")
_MODEL = re.compile(
    r'"reification_cost":\[\{"end_to_end_cycles":[\d.e+\-]+,"exec_time_us":([^,}]+)'
)
_STEP = re.compile(r"^(\s*)(\d+): k(\w+)\s")
_NAME = re.compile(r'thunk_info \{\s*profile_annotation: "([^"]*)"\s*thunk_id: (\d+)')
# The runtime prints the branch for a true predicate under this name; it is the one that is rare.
_RARE = "false_branch:"
_USUAL = "true_branch:"
_KERNELS = {"Kernel", "CustomKernel"}
_CONVOLUTIONS = {"Convolution", "Gemm", "CublasLtMatmul", "CuDnn"}


@dataclasses.dataclass(frozen=True)
class Program:
    """What one execution of a program is, per device; branches that rarely run do not count.

    Attributes:
        kernels: Kernels besides convolutions and matrix products.
        copies: Copies of arrays and constants.
        products: Convolutions and matrix products, whose kernels a library has.
        reads: Operands as large as the input, convolutions' included.
        writes: Results as large as the input.
        bytes: Operands and results together.
        model_us: The compiler's time of all kernels; without a model, bytes over bandwidth.
        large_bytes: Bytes of the kernels that move ``LARGE`` or more.
        large_us: Modelled time of those.
        conditionals: Branches.
        in_graphs: Those of them that the GPU decides itself, inside a CUDA graph.
        collectives: Collectives, those in rare branches included.
        peak_bytes: Most memory in use at a time.
    """

    kernels: int
    copies: int
    products: int
    reads: int
    writes: int
    bytes: int
    model_us: float
    large_bytes: int
    large_us: float
    conditionals: int
    in_graphs: int
    collectives: int
    peak_bytes: int

    @property
    def host_round_trips(self) -> int:
        """Branches whose predicate is copied to the host, which waits for it."""
        return self.conditionals - self.in_graphs

    @property
    def time_us(self) -> float:
        """The modelled time, and a launch for each kernel and copy."""
        return self.model_us + LAUNCH_US * (self.kernels + self.copies)


class Instruction(NamedTuple):
    """An instruction outside of fusions: bytes and numbers of elements of what it moves."""

    operands: list[tuple[int, int]]
    results: list[tuple[int, int]]
    us: float | None

    @property
    def bytes(self) -> int:
        """Bytes of operands and results."""
        return sum(size for size, _ in (*self.operands, *self.results))


class Step(NamedTuple):
    """A step of the runtime."""

    kind: str
    name: str
    rare: bool
    in_graph: bool


def compile_and_read(lowered: jax.stages.Lowered, size: int, bandwidth: float) -> Any:
    """Compile for a GPU; return the compiled program, and what it runs.

    Args:
        lowered: The program.
        size: Number of elements of a full array, on one device.
        bandwidth: Bytes per second of the chip.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(
            {
                "xla_dump_to": folder,
                "xla_dump_hlo_as_text": True,
                "xla_gpu_collect_cost_model_stats": True,
            }
        )
        (names,) = Path(folder).glob("*thunk_metadata.txt")
        # The second is written only where there was something to do, such as graphs to form.
        dumps = Path(folder).glob("*thunk_sequence*.txt")
        *_, steps = sorted(dumps, key=lambda path: "after" in path.name)
        found = steps_of(steps.read_text(), names.read_text())
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    return compiled, summarize(text, found, size, bandwidth, memory.peak_memory_in_bytes)


def summarize(text: str, steps: list[Step], size: int, bandwidth: float, peak: int) -> Program:
    """Add up what a program's usual steps run."""
    instructions = instructions_of(text)
    usual = [step for step in steps if not step.rare]
    total: dict[str, float] = dict.fromkeys(
        ("reads", "writes", "bytes", "model_us", "large_bytes", "large_us"), 0
    )
    for step in usual:
        instruction = instructions.get(step.name)
        if instruction is None or step.kind == "Conditional":
            continue
        total["reads"] += sum(elements == size for _, elements in instruction.operands)
        total["writes"] += sum(elements == size for _, elements in instruction.results)
        moved, us = instruction.bytes, instruction.us
        if us is None:
            us = 1e6 * moved / bandwidth if step.kind in _KERNELS else 0.0
        large = moved >= LARGE
        total["bytes"] += moved
        total["model_us"] += us
        total["large_bytes"] += moved * large
        total["large_us"] += us * large
    conditionals = [step for step in steps if step.kind == "Conditional"]
    kinds = [step.kind for step in usual]
    whole = ("reads", "writes", "bytes", "large_bytes")
    return Program(
        kernels=sum(kind in _KERNELS for kind in kinds),
        copies=sum(kind == "Copy" or kind.startswith("Mem") for kind in kinds),
        products=sum(kind in _CONVOLUTIONS for kind in kinds),
        conditionals=len(conditionals),
        in_graphs=sum(step.in_graph for step in conditionals),
        collectives=sum(
            "Start" in step.kind or step.kind.startswith(("AllReduce", "NcclAll")) for step in steps
        ),
        peak_bytes=peak,
        **{name: int(value) if name in whole else value for name, value in total.items()},  # type: ignore[arg-type]
    )


def steps_of(dump: str, metadata: str) -> list[Step]:
    """Return the steps of the runtime's dump, those inside graphs and branches included."""
    names = {int(number): name for name, number in _NAME.findall(metadata)}
    found: list[Step] = []
    graph: int | None = None  # Indentation of the graph that a line is in.
    branches: list[tuple[int, bool]] = []
    for line in dump.splitlines():
        indent = len(line) - len(line.lstrip())
        while branches and indent <= branches[-1][0]:
            branches.pop()
        if graph is not None and indent <= graph:
            graph = None
        if line.strip() in (_RARE, _USUAL):
            branches.append((indent, line.strip() == _RARE))
            continue
        match = _STEP.match(line)
        if match is None:
            continue
        if match[3] == "CommandBuffer":
            graph = indent
            continue
        rare = any(rare for _, rare in branches)
        found.append(Step(match[3], names.get(int(match[2]), ""), rare, graph is not None))
    return found


def instructions_of(text: str) -> dict[str, Instruction]:
    """Return the instructions that are run by themselves, by their names."""
    called = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))
    found: dict[str, Instruction] = {}
    for body, lines in _computations(text):
        if body in called:
            continue
        sizes: dict[str, list[tuple[int, int]]] = {}
        for line in lines:
            match = _INSTRUCTION.match(line)
            if match is None:
                continue
            name, shape, _, operands = match.groups()
            sizes[name] = _sizes(shape)
            used = re.findall(r"%([\w.\-]+)", operands)
            moved = [size for operand in used for size in sizes.get(operand, [])]
            model = _MODEL.search(line)
            found[name] = Instruction(moved, sizes[name], float(model[1]) if model else None)
    return found


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            words = line.split()
            name, lines = words[1 if words[0] == "ENTRY" else 0].lstrip("%"), []
        elif line.startswith("}") and name:
            yield name, lines
        else:
            lines.append(line)


def _sizes(shape: str) -> list[tuple[int, int]]:
    """Return bytes and number of elements of every array of a shape."""
    found = []
    for dtype, dimensions in _SHAPE.findall(shape):
        elements = math.prod(int(n) for n in dimensions.split(",") if n)
        bits = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        found.append((elements * bits // 8, elements))
    return found
