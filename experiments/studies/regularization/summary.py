"""What the study found: one summary per level of noise, and the tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from experiments.analysis.report import mean_std

Row = dict[str, Any]


def choose(rows: Sequence[Row], **where: Any) -> list[Row]:
    """Return the rows with these values.

    Example:
        >>> choose([{"a": 1, "b": 2}, {"a": 3, "b": 4}], a=3)
        [{'a': 3, 'b': 4}]
    """
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def best_penalty(rows: Sequence[Row], noise: float) -> float:
    """Return the weight decay of least validation cross-entropy, a mean over seeds."""
    plain = choose(rows, network="no norm", noise=noise)
    penalties = sorted({row["penalty"] for row in plain})
    losses = [
        np.mean([row["validation_cross_entropy"] for row in choose(plain, penalty=penalty)])
        for penalty in penalties
    ]
    # One that diverged in any seed is not the best.
    return penalties[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return one entry per level of noise: lists over seeds, by network."""
    found = []
    for noise in sorted({row["noise"] for row in rows}):
        best = best_penalty(rows, noise)
        groups = {
            "bn": choose(rows, network="bn", noise=noise),
            "bn, trained scale": choose(rows, network="bn, trained scale", noise=noise),
            "tuned": choose(rows, network="no norm", noise=noise, penalty=best),
        }
        unpenalized = choose(rows, network="no norm", noise=noise, penalty=0.0)
        if unpenalized:
            groups["no decay"] = unpenalized
        found.append(
            {
                "noise": noise,
                "best_penalty": best,
                "accuracy": {k: [r["test_accuracy"] for r in g] for k, g in groups.items()},
                "norm": {k: [float(np.median(r["norms"])) for r in g] for k, g in groups.items()},
                "weight_decay": {
                    k: [r["weight_decay"] for r in g]
                    for k, g in groups.items()
                    if k.startswith("bn")
                },
                "residual": [r["residual"] for r in groups["bn"]],
                "power": float(np.mean([r["power"] for r in groups["bn"]])),
                "constraint": float(
                    np.max(  # A NaN, unlike with max, is the largest.
                        [
                            abs(deviation / r["scale"] - 1)
                            for r in groups["bn"]
                            for deviation in r["deviations"]
                        ]
                    )
                ),
            }
        )
    return found


def tables(summary: Sequence[Row], penalties: Sequence[float], title: str) -> list[Table]:
    """Return the tables at the end of a study."""
    seeds = len(summary[0]["residual"])
    spread = f"mean ± sample standard deviation, n = {seeds} seeds" if seeds > 1 else "one seed"
    accuracies = Table(title=f"{title}: test accuracy, %", caption=spread, box=box.SIMPLE)
    for head in ("noise", "BN", "BN, gamma trained", "no norm, best decay", "no decay"):
        accuracies.add_column(head, justify="right")
    weights = Table(
        title="|v|, and the weight decay that BN implies",
        caption=f"{spread}; |v|: median over units",
        box=box.SIMPLE,
    )
    for head in (
        "noise",
        "|v|, BN",
        "|v|, best decay",
        "implied by BN",
        "BN, gamma trained",
        "best decay",
    ):
        weights.add_column(head, justify="right")
    for row in summary:
        accuracies.add_row(
            f"{row['noise']:g}",
            *(
                mean_std([100 * a for a in row["accuracy"].get(name, [])], 1)
                for name in ("bn", "bn, trained scale", "tuned", "no decay")
            ),
        )
        best = f"{row['best_penalty']:g}"
        if row["best_penalty"] in (min(penalties), max(penalties)):
            best += " (edge)"
        weights.add_row(
            f"{row['noise']:g}",
            mean_std(row["norm"]["bn"], 2),
            mean_std(row["norm"]["tuned"], 2),
            *(f"{np.mean(row['weight_decay'][k]):.2g}" for k in ("bn", "bn, trained scale")),
            best,
        )
    return [accuracies, weights]
