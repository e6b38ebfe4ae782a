"""Training jobs: the only place that knows optax, orbax, data sets and the command line.

``python -m experiments`` lists the commands. The rooms, each of which may use those before it:
common, config, models, methods, analysis, data, configs, training, benchmarks, train and evaluate,
studies, publish. ``minimal.py`` is a training script of one page that uses none of them.
"""

import os
import re
import sys

# Name: the module whose ``main`` it is, and what it does. Nothing is imported to list them.
COMMANDS = {
    "minimal": ("minimal", "Train and probe a CNN in one page of code: copy it."),
    "train": ("train", "Train networks with each normalization, and probe the shift."),
    "evaluate": ("evaluate", "Check the accuracies of a finished run."),
    "compare": ("analysis.compare.__main__", "Compare runs: tables, tests and one report."),
    "page": ("analysis.page.__main__", "Write the report of a finished run again."),
    "configs": ("configs.__main__", "List the experiments that train knows by name."),
    "prepare": ("data.prepare.__main__", "Download a data set and write it for training."),
    "image_cache": ("data.image_cache", "Show or clear the cache of decoded images."),
    "bench": ("benchmarks.__main__", "Time layer, distances, probe, step and input pipelines."),
    "pod_check": ("benchmarks.pod_check.__main__", "Compile a step for a TPU pod and read it."),
    "faults": ("benchmarks.faults.__main__", "Kill training again and again; nothing may be lost."),
    "bounds": ("studies.bounds.__main__", "Bounds and exact distance against dimension and noise."),
    "measures": (
        "studies.measures.__main__",
        "Compare measures of shift with each other, and accuracy.",
    ),
    "noise": ("studies.noise.__main__", "Accuracy under noisy weights, and what statistics help."),
    "regularization": ("studies.regularization.__main__", "Batch norm as a tuned weight decay."),
    "singularities": ("studies.singularities", "Find channels of a run that are about to die."),
    "sweep": ("studies.sweep.__main__", "Answer a question about the method by runs."),
    "zoo": ("studies.zoo.__main__", "Compare every method in one network, with one budget."),
    "publish": ("publish", "Write the tables and figures of README and docs from records."),
}


def _module() -> str | None:
    """Return the module of this package that ``python -m`` was given; None for others."""
    if sys.argv[:1] != ["-m"]:
        return None
    # -m may be joined to its argument, or to other options.
    found = (re.fullmatch(r"(?:-\w*m)?(experiments(?:\.\w+)*)", w) for w in sys.orig_argv[1:])
    return next((match[1] for match in found if match), None)


def _prepare(module: str | None) -> None:
    """Before a command: no backend to draw with, and a word about names that changed."""
    if module is None and not re.fullmatch(r"(.*/)?experiments/.*\.py", sys.argv[0]):
        return
    # Commands draw into files, with no backend chosen. That of a notebook, in whose shell they may
    # be started, need not be installed here, and matplotlib then fails as it is imported.
    os.environ.pop("MPLBACKEND", None)
    place = (module or "").removeprefix("experiments").lstrip(".")
    places = {where.removesuffix(".__main__"): name for name, (where, _) in COMMANDS.items()}
    first = place.partition(".")[0]
    names = places | {"readme": "publish", "micro_batch": "train digits_slices"}
    new = names.get(place.removesuffix(".__main__")) or names.get(first)
    new = new or (first if first in COMMANDS else None)
    if new is not None and place not in ("train", "evaluate"):
        print(f"error: python -m {module} is now: python -m experiments {new}", file=sys.stderr)
        sys.exit(2)


_prepare(_module())
