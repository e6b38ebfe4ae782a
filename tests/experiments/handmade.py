"""Run folders made by hand: what a training job leaves, with numbers that are easy to check."""

import json

from experiments.analysis.results import read_results
from experiments.config.experiment import ProbeConfig, TrainConfig, to_dict

LAYERS = ("stem_norm", "block_0/norm_0", "head_norm")


def ics_row(step, layer, value, **more):
    return {
        **{"step": step, "lag": 1, "layer": layer, "call": 0, "output": "", "kind": "BatchNorm"},
        **{"mode": "train", "statistics": "batch", "n": 8, "d": 16, "value": value},
        **{"certified_lower": value, "certified_upper": value, "exact": True, "spread": 2.0},
        **{"relative": value / 2, "relative_lower": value / 2, "relative_upper": value / 2},
        **{"upper_moments": 30.0, "upper_radius": 40.0, "upper_pairing": value},
        **{"lower_mean": 0.5 * value, "lower_norm": 0.1 * value},
        **{"pairing_optimal": True, "reason": "", **more},
    }


def make_run(
    folder,
    norms=("bn", "ubn"),
    seeds=(0, 1),
    layers=LAYERS,
    rows=ics_row,
    correct=lambda norm, seed: 360,
    versions=None,
    data=None,
    row=None,
    **fields,
):
    """Writes what a training job leaves; the shift of norm i is 1 / 2**i of the first one's.

    ``data`` is in data.json, ``row`` in every row of the summary; both besides the usual.
    """
    folder.mkdir()
    config = TrainConfig(norms=norms, seeds=seeds, probe=ProbeConfig(every=5), **fields)
    results = []
    for i, norm in enumerate(norms):
        for seed in seeds:
            run = folder / f"{norm}-seed{seed}"
            run.mkdir()
            alpha = {f"alpha/{layer}": 0.01 * k for k, layer in enumerate(layers)}
            alpha = alpha if norm == "ubn" else {}
            evaluations = [
                {"step": t, "accuracy": 0.9 + t / 200, "ms_per_step": 2.0, **alpha}
                for t in (10, 20)
            ]
            training = [{"step": t, "cross_entropy": 1 / t} for t in range(1, 21)]
            shift = [
                rows(t, layer, (k + 1) * t * 0.5**i)
                for t in (5, 10, 15, 20)
                for k, layer in enumerate(layers)
            ]
            kinds = {"train": training, "eval": evaluations}
            for kind, lines in ({**kinds, "ics": shift} if norm != "none" else kinds).items():
                text = "".join(json.dumps(line) + "\n" for line in lines)
                (run / f"{kind}.jsonl").write_text(text)
            results.append(
                {
                    **{"norm": norm, "seed": seed, "folder": run.name, "step": 20},
                    **{"accuracy": correct(norm, seed) / 360, "correct": correct(norm, seed)},
                    **{"count": 360, "cross_entropy": 0.125},
                    **{"updates_to_target": 20, "ms_per_step": 2.0, "train_seconds": 4.0},
                    **{"probe_seconds": 0.25 if norm != "none" else 0.0},
                    "alpha": {name.removeprefix("alpha/"): v for name, v in alpha.items()},
                    **(row or {}),
                }
            )
    summary = {"data": "digits & <more>", "target_accuracy": 0.97, "seconds": 9.0}
    for name, values in {
        "config": to_dict(config),
        "versions": {
            **{"jax": "1.2.3", "git_commit": "abc123", "git_changed_files": "", "time": "t"},
            **(versions or {}),
        },
        "summary": {**summary, "results": results},
        "data": {"name": summary["data"], "train_size": 1437, **(data or {})},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return read_results(folder)
