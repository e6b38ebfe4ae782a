"""The summary of a run that is stored with it."""

from typing import Any

import numpy as np

from experiments.analysis.report import updates_to
from experiments.training.run import Run


def summarize(run: Run, target: float) -> dict[str, Any]:
    """Return the results of one norm and seed; accuracy is that of the LAST state."""
    final = run.eval_rows[-1]
    return {
        "norm": run.program.norm,
        "seed": run.seed,
        "folder": run.folder.name,
        "step": final["step"],
        "accuracy": final["accuracy"],
        "correct": final["correct"],
        "count": final["count"],
        "cross_entropy": final["cross_entropy"],
        "not_finite": final.get("not_finite", 0),
        "updates_to_target": updates_to(run.eval_rows, target),
        "ms_per_step": float(np.median(run.step_ms)),
        "train_seconds": run.train_seconds,
        "probe_seconds": run.probe.seconds,
        "alpha": {
            name.removeprefix("alpha/"): value
            for name, value in final.items()
            if name.startswith("alpha/")
        },
    }
