"""What the study found: one summary per level of noise, and the tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.statistics import mean_std
from experiments.common.table import Column, Table, mean_std_column

Row = dict[str, Any]
NAMES = ("network", "noise", "seed", "penalty")
KEPT = ("test_accuracy", "validation_cross_entropy", "weight_decay", "residual", "power")


def rows_with(rows: Sequence[Row], **where: Any) -> list[Row]:
    """Return the rows with these values.

    Example:
        >>> rows_with([{"a": 1, "b": 2}, {"a": 3, "b": 4}], a=3)
        [{'a': 3, 'b': 4}]
    """
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def brief(rows: Sequence[Row]) -> list[Row]:
    """Return each row with one number, ``norm`` and ``constraint``, for those of all units."""
    return [
        {name: row[name] for name in NAMES}
        | {name: float(f"{row[name]:.6g}") for name in KEPT}
        | {
            "norm": float(f"{np.median(row['norms']):.6g}"),
            # A NaN, unlike with max, is the largest.
            "constraint": float(np.max(np.abs(np.array(row["deviations"]) / row["scale"] - 1))),
        }
        for row in rows
    ]


def best_penalty(rows: Sequence[Row], noise: float) -> float:
    """Return the weight decay of least validation cross-entropy, a mean over seeds."""
    plain = rows_with(rows, network="no norm", noise=noise)
    penalties = sorted({row["penalty"] for row in plain})
    losses = [
        np.mean([row["validation_cross_entropy"] for row in rows_with(plain, penalty=penalty)])
        for penalty in penalties
    ]
    # One that diverged in any seed is not the best.
    return penalties[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return one entry per level of noise: lists over seeds, by network.

    Args:
        rows: Of ``brief``.
    """
    found = []
    for noise in sorted({row["noise"] for row in rows}):
        best = best_penalty(rows, noise)
        groups = {
            "bn": rows_with(rows, network="bn", noise=noise),
            "bn, trained scale": rows_with(rows, network="bn, trained scale", noise=noise),
            "tuned": rows_with(rows, network="no norm", noise=noise, penalty=best),
        }
        unpenalized = rows_with(rows, network="no norm", noise=noise, penalty=0.0)
        if unpenalized:
            groups["no decay"] = unpenalized
        found.append(
            {
                "noise": noise,
                "best_penalty": best,
                "accuracy": {k: [r["test_accuracy"] for r in g] for k, g in groups.items()},
                "norm": {k: [r["norm"] for r in g] for k, g in groups.items()},
                "weight_decay": {
                    k: [r["weight_decay"] for r in g]
                    for k, g in groups.items()
                    if k.startswith("bn")
                },
                "residual": [r["residual"] for r in groups["bn"]],
                "power": float(np.mean([r["power"] for r in groups["bn"]])),
                "constraint": float(np.max([r["constraint"] for r in groups["bn"]])),
            }
        )
    return found


def tables(rows: Sequence[Row], title: str) -> dict[str, Table]:
    """Return the tables at the end of a study: accuracy, weights.

    Args:
        rows: Of ``brief``.
        title: Says what was trained, on what data.
    """
    summary = summarize(rows)
    penalties = sorted({row["penalty"] for row in rows_with(rows, network="no norm")})
    seeds = len(summary[0]["residual"])
    spread = f"mean ± sample standard deviation, n = {seeds} seeds" if seeds > 1 else "one seed"
    networks = {
        "bn": "BN",
        "bn, trained scale": "BN, gamma trained",
        "tuned": "no norm, best decay",
        "no decay": "no decay",
    }
    accuracies = Table(
        "accuracy",
        f"{title}: test accuracy, %",
        spread,
        (
            Column("noise", "{:g}"),
            *(mean_std_column(name, 1, 100) for name in networks.values()),
        ),
        [
            (row["noise"], *(mean_std(row["accuracy"].get(name, [])) for name in networks))
            for row in summary
        ],
    )
    lines = []
    for row in summary:
        best = f"{row['best_penalty']:g}"
        if row["best_penalty"] in (penalties[0], penalties[-1]):
            best += " (edge)"
        norms = (mean_std(row["norm"][name]) for name in ("bn", "tuned"))
        implied = (np.mean(row["weight_decay"][k]) for k in ("bn", "bn, trained scale"))
        lines.append((row["noise"], *norms, *implied, best))
    weights = Table(
        "weights",
        "|v|, and the weight decay that BN implies",
        f"{spread}; |v|: median over units",
        (
            *(Column("noise", "{:g}"), mean_std_column("|v|, BN", 2)),
            *(mean_std_column("|v|, best decay", 2), Column("implied by BN", "{:.2g}")),
            *(Column("BN, gamma trained", "{:.2g}"), Column("best decay", "{}")),
        ),
        lines,
    )
    return {"accuracy": accuracies, "weights": weights}
