"""The zoo on a tiny network: what it measures is what the runs say, and nothing is done twice."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import publish
from experiments.common.errors import NonFiniteLossError
from experiments.common.files import read_json
from experiments.common.table import to_markdown
from experiments.config.experiment import ModelConfig, NormConfig
from experiments.data import load_dataset
from experiments.methods import CONVS, NORMS
from experiments.studies.zoo import __main__ as zoo
from experiments.studies.zoo import measure, summary
from experiments.studies.zoo.config import METHODS, ZooConfig, batch_config, train_config
from experiments.training.program import build_program

pytestmark = pytest.mark.slow

TINY = ZooConfig(
    methods=("bn", "none+enorm"),
    parts=("train",),
    seeds=(0,),
    epochs=1,
    batch_size=256,
    target_accuracy=0.1,
    probe_every=2,
    probe_images=8,
    batch_sizes=(256,),
    batch_epochs=1,
    trains=0.01,
    seconds=0.1,
    model=ModelConfig(blocks=(1,), widths=(4,)),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Everything of one method, the training of another."""
    folder = tmp_path_factory.mktemp("zoo") / "out"
    config = dataclasses.replace(TINY, out=folder)
    with (folder.parent / "output").open("w") as file:
        zoo.run(config, Console(file=file, width=200), "the command")
        rest = dataclasses.replace(config, parts=("time", "batch"), methods=("bn",))
        zoo.run(rest, Console(file=file, width=200))
    return config, (folder.parent / "output").read_text()


def test_numbers_are_those_of_the_runs(done):
    config, output = done
    entries = {e["method"]: e for e in read_json(config.out / "zoo.json")["methods"]}
    assert list(entries) == ["bn", "none+enorm"]
    for method, entry in entries.items():
        (result,) = read_json(config.out / "runs" / method / "summary.json")["results"]
        assert entry["train"]["results"] == [result]
        lines = (config.out / "runs" / method / f"{method}-seed0" / "ics.jsonl").read_text()
        rows = [json.loads(line) for line in lines.splitlines()]
        layers = entry["shift"]["layers"]
        assert [layer["layer"] for layer in layers] == list(dict.fromkeys(r["layer"] for r in rows))
        values = [r["value"] for r in rows if r["layer"] == layers[0]["layer"]]
        assert layers[0]["value"] == pytest.approx(sum(values) / 2)  # the median of two
        assert entry["shift"]["measured"] == len(rows)
        assert f"{100 * result['accuracy']:.2f}" in output
    assert "absolute" not in entries["bn"]["shift"]
    ratios = [pair["ratio"] for pair in entries["none+enorm"]["shift"]["absolute"]]
    assert len(ratios) == len(entries["bn"]["shift"]["layers"])
    assert entries["bn"]["time"]["pairs"] >= 15
    assert 0.2 < entries["bn"]["time"]["ratio"] < 5  # against itself, on a busy machine
    assert entries["bn"]["batch"]["smallest"] == 256
    for entry in entries.values():
        assert "git_commit" in entry["train"]["versions"]
        assert entry["train"]["seconds"] > 0
    assert (config.out / "zoo.png").read_bytes().startswith(b"\x89PNG")
    rows = (config.out / "zoo.md").read_text().splitlines()[2:4]
    assert [row.split(" | ")[0] for row in rows] == ["| BatchNorm", "| no norm + ENorm"]


def test_record_has_the_table_and_the_figure(done, tmp_path):
    config, _ = done
    zoo.run(dataclasses.replace(config, record=tmp_path), Console(quiet=True))
    stored = read_json(tmp_path / "zoo.json")
    (table,) = publish.tables_of(stored).values()
    assert f"{to_markdown(table)}\n{table.caption}\n" == (config.out / "zoo.md").read_text()
    assert stored["versions"].keys() >= {"git_commit", "jax", "cpu_model"}
    for entry in stored["zoo"]:
        assert entry["train"]["other_versions"] == {}
        assert entry["train"]["command"] == "the command"
    publish.draw(tmp_path / "zoo_methods.png")
    assert (tmp_path / "zoo_methods.png").stat().st_size > 10_000


def test_all_updates_of_an_epoch_at_once_are_the_updates_of_a_run(done):
    """Same network, schedule, data and augmentation: the accuracy of the run of the same job."""
    config, _ = done
    job = batch_config(config, "bn", 256)
    assert dataclasses.replace(job, norm=config.norm) == train_config(config, ("bn",))
    tried = read_json(summary.result_path(config.out, "bn", "batch"))["tried"]
    (result,) = read_json(config.out / "runs" / "bn" / "summary.json")["results"]
    assert tried[0]["accuracy"] == pytest.approx(result["accuracy"], abs=2 / 360)


def test_every_option_of_the_job_counts():
    """Rule of alpha, schedule, momentum and loss: update by update those of a job's program."""
    job = batch_config(dataclasses.replace(TINY, batch_epochs=2), "ubn", 512)
    job = dataclasses.replace(
        job,
        norm=NormConfig(alpha="ramp", alpha_ramp=1.0, bound_penalty=0.5),
        optim=dataclasses.replace(
            job.optim,
            schedule="piecewise",
            warmup=0.0,
            boundaries=(1,),
            nesterov=False,
            label_smoothing=0.2,
        ),
    )
    dataset = load_dataset("digits")
    state = measure.last_state(measure.one_device_program(job, "ubn", dataset), job, dataset)
    # Four updates; alpha is what the ramp makes it, and nothing else would.
    np.testing.assert_allclose(state.params["head_norm"]["alpha"], 1.0, rtol=1e-6)
    program = build_program(dataclasses.replace(job, evals_per_epoch=1), "ubn", dataset)
    expected = program.init(jax.random.key(0), dataset.example(512)["image"])
    for epoch in range(2):
        for batch in dataset.pipeline(0, 512).batches(epoch):
            expected, _ = program.train_step(expected, dict(batch))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), state.params, expected.params
    )


def test_what_is_there_is_not_measured_again(done, monkeypatch, capsys):
    config, _ = done
    monkeypatch.setattr(zoo, "_measure", lambda *job: pytest.fail(str(job)))
    before = (config.out / "zoo.json").read_bytes()
    zoo.run(config, Console())
    assert "2 of 2 are in" in capsys.readouterr().out
    assert (config.out / "zoo.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"holds a study with another `epochs` \(=1, not 2\)"):
        zoo.run(dataclasses.replace(config, epochs=2), Console())
    with pytest.raises(
        ValueError, match="exists, and results are never overwritten; give another --out"
    ):
        zoo.run(dataclasses.replace(config, out=config.out / "runs"), Console())


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    """A method that was cut off is trained to its end; one that diverges is reported."""
    config = dataclasses.replace(TINY, out=tmp_path / "out", methods=("bn",))
    monkeypatch.setattr(measure, "train", lambda job, log, **options: seen.append(job) or 1 / 0)
    seen = []
    with pytest.raises(ZeroDivisionError):
        zoo.run(config, Console())
    (config.out / "runs" / "bn").mkdir(parents=True)

    def diverge(job, log, **options):
        seen.append(job)
        raise NonFiniteLossError("loss is nan at update 3")

    monkeypatch.setattr(measure, "train", diverge)
    zoo.run(config, Console())
    assert [job.run_dir for job in seen] == [str(config.out / "runs" / "bn")] * 2
    assert [job.resume for job in seen] == ["auto"] * 2
    assert "| BatchNorm | diverged | - |" in (config.out / "zoo.md").read_text()


def test_smallest_batch_stops_where_nothing_is_learnt(monkeypatch):
    accuracies = {16: 0.95, 4: 0.9, 2: 0.3, 1: 0.99}
    config = dataclasses.replace(TINY, batch_sizes=tuple(accuracies), trains=0.9)
    sizes = {}

    def trained(job, method, dataset):
        size = job.optim.batch_size
        sizes[size] = (job.norm.slice_size, job.optim.learning_rate)
        return accuracies[size]

    monkeypatch.setattr(measure, "train_compiled", trained)
    dataset = load_dataset("digits")
    found = measure.smallest_batch(config, "kalman", dataset)
    assert found["smallest"] == 4
    assert list(sizes) == [16, 4, 2]
    assert sizes[2] == (2, pytest.approx(0.1 * 2 / 256))
    assert batch_config(config, "kalman", 1).norm.slice_size == 1
    accuracies[16] = 0.1
    assert measure.smallest_batch(config, "kalman", dataset)["smallest"] is None


def test_every_method_is_in():
    assert set(NORMS) <= set(METHODS) | {"none", "affine"}
    assert {name.partition("+")[2] for name in METHODS} >= set(CONVS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ("fly",)}, r"part \(='fly'\) is unknown; choose from train, time, batch"),
        ({"batch_sizes": (1, 4)}, r"`batch_sizes` \(=\(1, 4\)\) must be positive and become small"),
        ({"batch_sizes": (4, 0)}, r"`batch_sizes` \(=\(4, 0\)\) must be positive"),
        ({"methods": ("bm",)}, r"`norm` \(='bm'\) is unknown"),
        ({"base": "bm"}, r"`norm` \(='bm'\) is unknown"),
        ({"trains": 0.0}, r"`trains` \(=0.0\) must be in \(0, 1\]"),
        ({"seconds": 0.0}, r"`seconds` \(=0.0\) must be a positive number"),
        ({"epochs": 0}, r"`epochs` \(=0\) must be a positive number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ZooConfig(**options)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as status:
        zoo.main(["--help"])
    assert status.value.code == 0
    words = {word.strip(",.:()") for word in capsys.readouterr().out.split()}
    assert words >= {"--batch-sizes", "--parts", "diverges"}


def test_cells_without_numbers():
    """What has not been measured is empty, what cannot be is a dash, and failures are told."""
    pair = {"less": "gn"}, {"less": "bn"}, {"less": None}
    result = {"accuracy": 0.5, "updates_to_target": None}
    entries = [
        {
            "method": "gn",
            "train": {"results": [result, {"accuracy": 0.75, "updates_to_target": 30}]},
            "shift": {
                "layers": [{"value": v, "relative": v / 2} for v in (1.0, 2.0, 4.0)],
                "absolute": pair,
                "relative": pair[:1],
            },
        },
        {"method": "ic", "train": {"diverged": "loss is nan"}, "batch": {"smallest": None}},
        {"method": "rms", "time": {"ratio": 1.5, "quartiles": [1.25, 2.0]}},
    ]
    assert list(summary.zoo_table(entries, ZooConfig()).cells()) == [
        [
            *("GroupNorm", "62.50 ± 17.68", "30 (1 of 2 seeds)", "", "2 (1-4)", "1 (0.5-2)"),
            *("1, 1 of 3", "1, 0 of 1", ""),
        ],
        ["IndependentComponent", "diverged", "-", "", "-", "-", "-", "-", "> 16"],
        ["RMSNorm", "", "", "1.50 (1.25-2.00)", "", "", "", "", ""],
    ]
