"""A sweep from end to end on networks of one block; interrupted, repeated, diverged."""

import dataclasses
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from experiments import publish
from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.record import to_json
from experiments.common.files import read_rows
from experiments.studies import sweep
from experiments.studies.sweep import Setting, Sweep, run, sweeps
from experiments.studies.sweep import __main__ as sweep_main
from experiments.studies.sweep.__main__ import SweepConfig, main
from experiments.studies.sweep.table import sweep_table
from experiments.training import job
from tests.experiments.handmade import make_run
from tests.experiments.jobs import StopAfter

pytestmark = pytest.mark.slow

TINY = {
    "seeds": (0, 1),
    "evals_per_epoch": 1,
    "model": {"blocks": (1,), "widths": (4,)},
    "optim": {"epochs": 1, "batch_size": 128},
    "probe": {"every": 0},
}
BN = sweeps.change(sweeps.BASE, **TINY)
UBN = sweeps.ubn(BN, unit="sample", alpha_init=1.0)
WILD = sweeps.change(BN, norms=("none",), optim={"learning_rate": 1e30})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps")
    output = io.StringIO()
    console = Console(file=output, width=200)
    small = Sweep("Is it so?", (Setting("a", (BN, UBN)), Setting("b", (BN, WILD))))
    record = run.run_sweep("small", small, out, console)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    # Nothing is left to do, so there is time.
    assert run.run_sweep("small", small, out, console, until=0.0) == record
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == times
    return out, json.loads(to_json(record)), output.getvalue()


def test_every_run_is_made_once(finished):
    out, record, output = finished
    assert len([p for p in out.iterdir() if p.name.startswith("digits-")]) == 3
    assert output.count("of 3: python -m experiments train") == 6
    assert output.count("Done before, in") == 3
    a, b = record["settings"]
    assert [arm["name"] for arm in a["arms"]] == ["bn", "ubn alpha_init=1 unit=sample"]
    assert [arm["name"] for arm in b["arms"]] == ["bn"]
    assert a["arms"][0] == b["arms"][0]
    assert a["failed"] == []
    assert "looseness" not in a["arms"][0]


def test_what_diverges_is_an_answer(finished):
    _, record, output = finished
    (failed,) = record["settings"][1]["failed"]
    assert "--norms none" in failed["command"]
    assert "at update" in failed["reason"]
    assert "Failed: loss is" in output


def test_what_was_interrupted_goes_on(finished, tmp_path):
    out, _, _ = finished
    folder = run.folder_of(BN, tmp_path)
    shutil.copytree(run.folder_of(BN, out), folder)
    before = json.loads((folder / "summary.json").read_text())["results"]
    (folder / "summary.json").unlink()
    rows = (folder / "bn-seed1" / "train.jsonl").read_bytes()
    run.train_once(BN, folder, Console(file=io.StringIO()))
    assert (folder / "bn-seed1" / "train.jsonl").read_bytes() == rows
    assert json.loads((folder / "summary.json").read_text())["results"] == before


def test_seeds_apart_are_recorded_as_they_end(finished, tmp_path, monkeypatch):
    _, record, _ = finished
    study = Sweep("Is it so?", (Setting("a", (BN, UBN)),), apart=True)
    configs = study.runs(study.settings[0])
    assert [(c.norms, c.seeds) for c in configs] == [
        *((("bn",), (0,)), (("ubn",), (0,)), (("bn",), (1,)), (("ubn",), (1,)))
    ]
    monkeypatch.setitem(sweeps.SWEEPS, "units", study)
    options = ["--out", str(tmp_path / "out"), "--record", str(tmp_path)]
    with monkeypatch.context() as patch:  # no time after the first run
        times = iter((0.0, 1.0, 61.0))
        patch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(times)))
        patch.setattr(sweep_main, "time", SimpleNamespace(monotonic=lambda: 0.0))
        assert main(["units", "--minutes", "1", *options]) == 0
    assert [p.name[-10:] for p in (tmp_path / "units").iterdir()] == ["seed0.json"]
    assert main(["units", *options]) == 0
    assert len(list((tmp_path / "units").iterdir())) == 4
    # As with all seeds in one run, but for the times.
    (setting,) = json.loads((tmp_path / "out" / "units.json").read_text())["settings"]
    for arm, whole in zip(setting["arms"], record["settings"][0]["arms"], strict=True):
        assert arm["name"] == whole["name"]
        assert [r["correct"] for r in arm["runs"]] == [r["correct"] for r in whole["runs"]]
    assert [arm.name for arm in combine(sorted((tmp_path / "units").iterdir())).arms]
    # Another machine has the records alone: it goes on, and makes no run again.
    before = (tmp_path / "out" / "units.json").read_bytes()
    for path in (tmp_path / "units").glob("*seed1.json"):
        other = json.loads(path.read_text())
        other["versions"] |= {"git_commit": "another", "platform": "another"}
        path.write_text(json.dumps(other))
    options[1] = str(tmp_path / "other")
    assert main(["units", *options]) == 0
    assert not [path for path in (tmp_path / "other").iterdir() if path.is_dir()]
    after = json.loads((tmp_path / "other" / "units.json").read_text())
    notes = after["settings"][0].pop("notes")
    assert any("another" in note for note in notes)
    expected = json.loads(before)
    expected["settings"][0].pop("notes")
    assert after == expected
    assert not (tmp_path / "units.json").exists()  # The runs' files say all of it.
    for name, value in (("minutes", 0.0), ("seconds", -1.0)):
        with pytest.raises(ValueError, match=rf"`{name}` \(={value}\) must be positive"):
            SweepConfig(**{name: value})


def test_out_of_time(tmp_path):
    output = io.StringIO()
    question = Sweep("Is it so?", (Setting("a", (BN, UBN)),))
    assert run.run_sweep("a", question, tmp_path, Console(file=output), until=0.0) is None
    assert "Out of time before run 1 of 2; repeat to go on." in output.getvalue()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of JPEG files; what is decoded of them is not kept among the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in {"train": 12, "test": 4}.items():
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return tmp_path / "images"


def test_cifar_stopped_in_the_middle_of_a_run(images, tmp_path, monkeypatch):
    """The sweep for accelerators, with a smaller network: all seeds at once, in two slices."""
    real = sweeps.SWEEPS["cifar10-resnet18-short"]
    assert [c.norms for c in real.settings[0].configs] == [("bn",), ("ubn",), ("ubn",), ("ubn",)]
    small = {
        "seeds": (0, 1),
        "model": {"blocks": (1,), "widths": (4,)},
        "optim": {"epochs": 2, "batch_size": 8},
        "probe": {"every": 3, "images": 4},
    }
    configs = [sweeps.change(config, **small) for config in real.settings[0].configs[:2]]
    assert all(config.seeds_together for config in configs)
    question = real._replace(settings=(Setting("small", tuple(configs)),))
    output = io.StringIO()
    console, folder = Console(file=output, width=200), run.folder_of(configs[0], tmp_path / "out")
    stop = StopAfter(5)
    with monkeypatch.context() as patch:
        patch.setattr(job, "Preemption", lambda *options: stop)
        patch.setattr(run, "time", SimpleNamespace(monotonic=lambda: float(stop.left <= 0)))
        assert run.run_sweep("c", question, tmp_path / "out", console, 1.0, str(images)) is None
    assert "Out of time in run 1 of 2; repeat to go on." in output.getvalue()
    assert 0 < len(read_rows(folder / "bn-seed1" / "train.jsonl")) < 6
    monkeypatch.setitem(sweeps.SWEEPS, "cifar10-resnet18-short", question)
    folders = {"--data-dir": images, "--out": tmp_path / "out", "--record": tmp_path}
    options = [str(word) for option in folders.items() for word in option]
    assert main(["cifar10-resnet18-short", *options]) == 0
    assert len(read_rows(folder / "bn-seed1" / "train.jsonl")) == 6
    stored = (tmp_path / "cifar10-resnet18-short.json").read_text()
    assert str(tmp_path) not in stored
    (setting,) = json.loads(stored)["settings"]
    assert [arm["name"] for arm in setting["arms"]] == ["bn", "ubn bessel_correction=True"]
    assert [len(arm["runs"]) for arm in setting["arms"]] == [2, 2]


def test_table_of_runs_made_by_hand(tmp_path):
    made = make_run(tmp_path / "a", correct=lambda norm, seed: 350 + seed + 2 * (norm == "ubn"))
    comparison = make_record(combine([made.folder]), "")
    arms = [run.small(arm) for arm in comparison["arms"]]
    setting = {"setting": "a", "failed": [], **comparison, "arms": arms}
    table = sweep_table({"question": "Is it so?", "settings": [setting]})
    cells = dict(zip([c.name for c in table.columns], list(table.cells())[1], strict=True))
    assert cells["minus the first"] == "+0.56"  # 2 of 360, for every seed: no spread to judge by
    assert (cells["95 % interval"], cells["p"]) == ("-", "-")
    assert cells["epochs to 97 %"] == "15.0 ± 0.0"
    assert cells["relative shift, ratio"] == "0.50 to 0.50"
    assert (cells["moved less"], cells["moved more"]) == ("3", "0")
    assert cells["alpha"] == "0.00 to 0.02"


def test_table_and_readme(finished, tmp_path):
    _, record, _ = finished
    table = sweep_table(record)
    rows = [dict(zip([c.name for c in table.columns], r, strict=True)) for r in table.cells()]
    assert [(row["setting"], row["method"].split()[0]) for row in rows] == [
        *(("a", "BatchNorm"), ("a", "UnitizedBatchNorm"), ("b", "BatchNorm"), ("b", "failed:")),
    ]
    accuracies = [run["accuracy"] for run in record["settings"][0]["arms"][1]["runs"]]
    assert rows[1]["test accuracy, %"].startswith(f"{50 * sum(accuracies):.2f} ± ")
    assert rows[0]["minus the first"] == rows[3]["test accuracy, %"] == "-"
    assert rows[1]["alpha"] != "-"
    (tmp_path / "s.json").write_text(to_json(record))
    text = "<!-- table: s.json sweep | setting | method | n -->\n<!-- end of table -->\n"
    assert "| a | BatchNorm | 2 |\n" in publish.update(text, tmp_path)


def test_questions_can_be_asked():
    assert set(sweeps.SWEEPS) >= {"units", "alpha", "learning-rate", "batch-size", "depth"}
    for name, question in sweep.SWEEPS.items():
        SweepConfig(names=(name,))
        for setting in question.settings:
            assert len(set(setting.configs)) == len(setting.configs) > 1
            assert {config.seeds for config in setting.configs} == {setting.configs[0].seeds}
            first = dataclasses.replace(setting.configs[0], norms=("ubn",), norm=sweeps.BASE.norm)
            for config in setting.configs:  # In a setting, only the method differs.
                like = dataclasses.replace(config, norms=("ubn",), norm=sweeps.BASE.norm)
                assert like == first


def test_unknown_sweep():
    with pytest.raises(ValueError, match=r"sweep \(='colour'\) is unknown; choose from units, al"):
        SweepConfig(names=("colour",))
