"""The simplex method for transportation, on integer masses: plans that are feasible exactly."""

import itertools
import math
from collections.abc import Iterable

import numpy as np

_PIVOTS = 2000  # a bound on the time; without an end the plan is feasible all the same
_NOISE = 8 * np.finfo(np.float64).eps  # of a reduced cost, in units of its terms

Flows = dict[tuple[int, int], int]  # (row, column) -> mass


def masses(a: np.ndarray, b: np.ndarray) -> tuple[list[int], list[int], int]:
    """Integers in the ratios of a and of b, exactly, and the sum that both have.

    Args:
        a: Positive weights of the rows, integers or floating-point numbers.
        b: Of the columns.
    """
    sides = [_integers(w) for w in (a, b)]
    totals = [sum(side) for side in sides]
    common = math.gcd(*totals)
    supply, demand = (
        [k * (other // common) for k in side]
        for side, other in zip(sides, totals[::-1], strict=True)
    )
    return supply, demand, totals[0] * (totals[1] // common)


def _integers(w: np.ndarray) -> list[int]:
    if w.dtype.kind in "biu":
        numbers = [int(k) for k in w]
    else:
        digits, exponents = np.frexp(w.astype(np.float64))
        shifts = exponents - exponents.min()
        numbers = [int(k) << int(s) for k, s in zip(digits * 2.0**53, shifts, strict=True)]
    common = math.gcd(*numbers)
    return [k // common for k in numbers]


def network_simplex(
    cost: np.ndarray, supply: list[int], demand: list[int], rows: np.ndarray, columns: np.ndarray
) -> tuple[Flows, np.ndarray]:
    """Improve a plan until no pair of points would pay, or for a while.

    A basis is a spanning tree of rows and columns: its masses follow from the marginals, leaf by
    leaf, in integers; its potentials from ``f_i + g_j = C_ij`` along it. A pair whose reduced
    cost ``C_ij - f_i - g_j`` is negative closes a cycle, round which mass moves until an arc is
    empty, which leaves.

    Args:
        cost: (n, m) finite costs.
        supply: Masses of the rows, positive.
        demand: Of the columns, positive, with the same sum.
        rows: Of the pairs to start from, best first.
        columns: Likewise; every row and column must be met.

    Returns:
        The masses of a feasible plan, and a potential of the columns.

    References:
        G. Dantzig, Application of the simplex method to a transportation problem, 1951.
    """
    n, m = cost.shape
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    tree = _spanning_tree(n, m, [*pairs, *_staircase(supply, demand)])
    flows = _tree_flows(n, supply, demand, tree)
    if min(flows.values()) < 0:
        flows = _tree_flows(n, supply, demand, _spanning_tree(n, m, _staircase(supply, demand)))
    # Small potentials where most of the points are: those of a far point round coarsely.
    root = int(np.argmin(np.median(cost, axis=1)))
    for _ in range(_PIVOTS):
        order, parent = _traverse(n, m, flows, root)
        f, g = _potentials(cost, order, parent)
        reduced = cost - f[:, None] - g[None, :]
        reduced += _NOISE * (cost + np.abs(f)[:, None] + np.abs(g)[None, :])
        i, j = divmod(int(np.argmin(reduced)), m)
        if reduced[i, j] >= 0:
            break
        _pivot(n, flows, parent, i, j)
    return {pair: mass for pair, mass in flows.items() if mass > 0}, g


def dual_value(
    cost: np.ndarray, supply: list[int], demand: list[int], total: int, g: np.ndarray
) -> float:
    """Lower bound on the optimum from any potential of the columns, rounded down.

    ``sum a f + sum b g`` with f and then g its best partner: the sum is exact in integers.
    """
    f = np.min(cost - g[None, :], axis=1)
    g = np.min(cost - f[:, None], axis=0)
    g -= np.finfo(np.float64).eps * np.abs(g)  # f_i + g_j <= C_ij, whatever the difference lost
    numbers, weights = np.concatenate([f, g]), [*supply, *demand]
    digits, exponents = np.frexp(numbers)
    least = int(exponents.min())
    summed = sum(
        int(k) * w << (int(e) - least)
        for k, e, w in zip(digits * 2.0**53, exponents, weights, strict=True)
    )
    if summed <= 0:
        return 0.0
    shift = least - 53
    value = (summed << max(shift, 0)) / (total << max(-shift, 0))
    return value * (1 - 4 * np.finfo(np.float64).eps)


def _staircase(supply: list[int], demand: list[int]) -> list[tuple[int, int]]:
    """Return a spanning tree with masses of the same order as the points: the north-west corner."""
    i = j = 0
    left, wanted = supply[0], demand[0]
    pairs = [(0, 0)]
    while i < len(supply) - 1 or j < len(demand) - 1:
        if j == len(demand) - 1 or (left <= wanted and i < len(supply) - 1):
            wanted -= left
            i += 1
            left = supply[i]
        else:
            left -= wanted
            j += 1
            wanted = demand[j]
        pairs.append((i, j))
    return pairs


def _spanning_tree(n: int, m: int, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the first pairs that close no cycle (Kruskal)."""
    leader = list(range(n + m))

    def find(k: int) -> int:
        while leader[k] != k:
            leader[k] = k = leader[leader[k]]
        return k

    tree = []
    for i, j in pairs:
        a, b = find(i), find(n + j)
        if a != b:
            leader[a] = b
            tree.append((i, j))
            if len(tree) == n + m - 1:
                break
    return tree


def _tree_flows(n: int, supply: list[int], demand: list[int], tree: list[tuple[int, int]]) -> Flows:
    """Return the masses on a spanning tree; negative where none is feasible."""
    order, parent = _traverse(n, len(demand), dict.fromkeys(tree, 0), 0)
    left = [*supply, *demand]
    flows: Flows = {}
    for k in reversed(order[1:]):
        flows[_pair(n, k, parent[k])] = left[k]
        left[parent[k]] -= left[k]
    return flows


def _traverse(n: int, m: int, flows: Iterable[tuple[int, int]], root: int):
    """Nodes, columns after rows, from the root outwards; and the parent of each."""
    neighbours: list[list[int]] = [[] for _ in range(n + m)]
    for i, j in flows:
        neighbours[i].append(n + j)
        neighbours[n + j].append(i)
    parent = [-1] * (n + m)
    order = [root]
    for k in order:
        for other in neighbours[k]:
            if other != parent[k]:
                parent[other] = k
                order.append(other)
    return order, parent


def _potentials(cost: np.ndarray, order: list[int], parent: list[int]):
    n = len(cost)
    z = [0.0] * len(order)
    for k in order[1:]:
        i, j = _pair(n, k, parent[k])
        z[k] = float(cost[i, j]) - z[parent[k]]
    potentials = np.array(z)
    return potentials[:n], potentials[n:]


def _pivot(n: int, flows: Flows, parent: list[int], i: int, j: int) -> None:
    """Mass enters on (i, j) and moves round the cycle that it closes in the tree."""
    to_root = [[i], [n + j]]
    for path in to_root:
        while parent[path[-1]] >= 0:
            path.append(parent[path[-1]])
    while len(to_root[0]) > 1 and len(to_root[1]) > 1 and to_root[0][-2] == to_root[1][-2]:
        for path in to_root:
            path.pop()
    # Every other arc from either end gives what the entering one takes.
    arcs = [[_pair(n, a, b) for a, b in itertools.pairwise(p)] for p in to_root]
    giving = [pair for path in arcs for pair in path[::2]]
    taking = [pair for path in arcs for pair in path[1::2]]
    leaving = min(giving, key=lambda pair: flows[pair])
    mass = flows[leaving]
    for pair in giving:
        flows[pair] -= mass
    for pair in taking:
        flows[pair] += mass
    del flows[leaving]
    flows[i, j] = mass


def _pair(n: int, a: int, b: int) -> tuple[int, int]:
    return (a, b - n) if a < n else (b, a - n)
