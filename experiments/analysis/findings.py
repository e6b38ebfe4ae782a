"""What a run or comparison found, in words: accuracies, their paired difference, and the drift."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.analysis.comparison import QUANTITIES, LayerComparison
from experiments.analysis.results import Results
from experiments.analysis.shift import comparisons
from experiments.common.statistics import Paired, holm, mean_std, median, paired, smallest

LEVEL = 0.05  # Of the test; intervals are of 95 %.
# What a number of methods is, by the verdict on each.
JUDGED = {
    "more accurate": "more accurate",
    "less accurate": "less accurate",
    "no difference found": "with no difference found",
    None: "without a test",
}
Compared = Sequence[tuple[str, str, str, list[LayerComparison]]]


class Found(NamedTuple):
    """What was found.

    Attributes:
        lead: The answer, in one or two sentences.
        each: Of more than two methods, a sentence for each but the base, the most accurate first.
    """

    lead: str
    each: list[str]


def findings(results: Results, compared: Compared | None = None) -> Found:
    """Say how accurate the methods are, whether they differ, and how far their layers drifted.

    The first method is the base of all differences. They are paired by seed; of several, a
    difference is one if its p-value, adjusted by Holm's method, is below 0.05.

    Args:
        results: Of a finished run or a comparison.
        compared: ``shift.comparisons`` of it, if it is there already.
    """
    base, *others = results.names
    means = {norm: mean_std(results.accuracies(norm))[0] for norm in results.names}
    n = len(results.accuracies(base))
    if not others:
        seeds = f"mean of {n} seeds" if n > 1 else "one seed"
        lead = f"{_subject(results, base)} reached {_percent(means[base])} ({seeds})."
        return Found(_sentence(lead), [])
    found = {norm: paired(results.accuracies(norm), results.accuracies(base)) for norm in others}
    adjusted = dict(zip(others, holm([found[norm].p for norm in others]), strict=True))
    drifts = drift(list(comparisons(results)) if compared is None else compared)
    told = {
        norm: difference(found[norm], adjusted[norm] if len(others) > 1 else None)
        for norm in others
    }
    if len(others) == 1:
        (norm,) = others
        lead = (
            f"{_subject(results, norm)} reached {_percent(means[norm])} and "
            f"{_subject(results, base)} {_percent(means[base])} ({told[norm]})."
        )
        return Found(" ".join([_sentence(lead), *_drifted(drifts.get((norm, base)))]), [])
    best = results.by_result[0]
    lead = _sentence(
        f"{_subject(results, best)} reached the best accuracy, {_percent(means[best])}"
    )
    if best != base:
        lead += f"; {_subject(results, base)}, with which the others are compared, "
        lead += _percent(means[base])
    judged = [verdict(found[norm], adjusted[norm]) for norm in others]
    counts = [f"{judged.count(key)} {words}" for key, words in JUDGED.items() if key in judged]
    lead += f". Of the {len(others)} others, against {_subject(results, base)}: {', '.join(counts)}"
    return Found(
        f"{lead} ({n} paired seeds)." if n > 1 else f"{lead} (one seed).",
        [
            " ".join(
                [
                    f"{results.label(norm)}: {_percent(means[norm])}, {told[norm]}.",
                    *_drifted(drifts.get((norm, base))),
                ]
            )
            for norm in results.by_result
            if norm != base
        ],
    )


def _subject(results: Results, norm: str) -> str:
    """Return a method as the subject of a sentence: "no norm reached" would say another thing."""
    name = results.label(norm)
    return f"the network with {name}" if norm.startswith("none") else name


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def verdict(found: Paired, adjusted: float | None = None) -> str | None:
    """Return what a paired test says of the first method; None if there is no test.

    Args:
        found: Of the accuracies.
        adjusted: Its p-value, adjusted for the number of comparisons; default: its own.

    Example:
        >>> verdict(Paired(3, -0.01, -0.02, -0.005, 0.01)), verdict(Paired(3, 0.0, -1.0, 1.0, 1.0))
        ('less accurate', 'no difference found')
    """
    p = found.p if adjusted is None else adjusted
    if math.isnan(p):
        return None
    if p >= LEVEL:
        return "no difference found"
    return "more accurate" if found.mean > 0 else "less accurate"


def no_test(found: Paired) -> str:
    """Return why there is no test of a difference.

    Example:
        >>> no_test(Paired(1, 0.1, math.nan, math.nan, math.nan))
        'one seed: nothing is known of chance'
    """
    if not math.isfinite(found.mean):
        return "an accuracy is not finite: not compared"
    if found.n < 2:
        return "one seed: nothing is known of chance"
    return f"the same in each of {found.n} seeds: no spread to judge by"


def difference(found: Paired, adjusted: float | None = None) -> str:
    """Return a difference of accuracies in words.

    Args:
        found: Of the accuracies, in [0, 1].
        adjusted: Its p-value, adjusted for several comparisons; None of a single one.

    Example:
        >>> difference(Paired(3, -0.003, -0.011, 0.005, 0.2))
        'difference -0.3 points, 95 % interval -1.1 to +0.5, 3 paired seeds: no difference found'
    """
    word = verdict(found, adjusted)
    points = f"difference {_points(found.mean)} points" if math.isfinite(found.mean) else ""
    if word is None:
        return ", ".join(part for part in (points, no_test(found)) if part)
    # An interval without 0, which is of one comparison, would seem to contradict the words.
    more = " after adjustment" if adjusted is not None and found.p < LEVEL <= adjusted else ""
    return (
        f"{points}, 95 % interval {_points(found.low)} to {_points(found.high)}, "
        f"{found.n} paired seeds: {word}{more}"
    )


def drift(compared: Compared) -> dict[tuple[str, str], dict[str, float]]:
    """Return how many times as far the layers moved: by norm and base, and by quantity.

    The median over layers and seeds of each seed's median ratio.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for norm, base, quantity, layers in compared:
        ratios = [ratio for layer in layers for ratio in layer.seed_ratios]
        found.setdefault((norm, base), {})[quantity] = median(ratios)
    return found


def _drifted(ratios: dict[str, float] | None) -> list[str]:
    if not ratios or math.isnan(smallest(ratios.get(q, math.nan) for q in QUANTITIES)):
        return []
    return [
        f"Layers drifted {times(ratios['absolute'])} times as far, "
        f"{times(ratios['relative'])} times in units of their spread."
    ]


def times(ratio: float) -> str:
    """Return a ratio with the digits that it takes to tell it from 0 and 1.

    Example:
        >>> times(1.12), times(0.034), times(240.0), times(1.03)
        ('1.1', '0.034', '240', '1.03')
    """
    if ratio < 0.95:
        return f"{ratio:.2g}"
    if ratio < 1.1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %" if math.isfinite(accuracy) else "no finite accuracy"


def _points(value: float) -> str:
    """Return a difference in percentage points, never as -0.0."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"
