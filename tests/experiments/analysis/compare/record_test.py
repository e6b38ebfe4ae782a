"""From run folders made by hand to record, tables, files and README."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from experiments.analysis.compare import combine, make_record, tables
from experiments.analysis.compare.__main__ import main
from experiments.analysis.compare.command import train_command
from experiments.analysis.compare.page import comparison_page
from experiments.analysis.compare.record import to_json
from experiments.common.table import Column, Table, to_csv, to_markdown
from experiments.config.experiment import NormConfig, OptimConfig, TrainConfig
from tests.experiments.analysis.page_test import Outline
from tests.experiments.handmade import LAYERS, ics_row, make_run

CORRECT = {"bn": [350, 352, 357], "ubn": [353, 354, 358]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")

    def correct(norm, seed):
        return CORRECT[norm][seed]

    first = make_run(folder / "a", seeds=(0, 1, 2), correct=correct)
    rms = NormConfig(unit="rms")
    second = make_run(folder / "b", norms=("ubn",), seeds=(0, 1, 2), norm=rms, correct=correct)
    return [first.folder, second.folder]


@pytest.fixture(scope="module")
def record(folders):
    made = make_record(combine(folders), "the command")
    # Through the file, as the README's tables are made.
    assert json.loads(to_json(made)) == made
    return json.loads(to_json(made))


def cells(table):
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.cells()]


def test_record(record):
    assert [arm["name"] for arm in record["arms"]] == ["bn", "ubn unit=reference", "ubn unit=rms"]
    assert record["command"] == "the command"
    assert [run["command"] for run in record["train"]] == [
        "python -m experiments train --probe.every 5",
        "python -m experiments train --norms ubn --norm.unit rms --probe.every 5",
    ]
    assert record["versions"] == {"jax": "1.2.3", "git_commit": "abc123", "git_changed_files": ""}
    assert record["config"]["optim.learning_rate"] == 0.1
    assert "norm.unit" not in record["config"]
    assert record["arms"][2]["options"]["norm.unit"] == "rms"
    (bn, ubn, rms) = record["arms"]
    assert [run["correct"] for run in rms["runs"]] == CORRECT["ubn"]
    # 97 % only at the last of 20 updates, of 15 epochs.
    assert [run["epochs_to_target"] for run in bn["runs"]] == [15.0] * 3
    assert [run["time_ratio"] for run in ubn["runs"]] == [1.0] * 3
    assert [run["time_ratio"] for run in rms["runs"]] == [None] * 3  # trained in another run
    assert bn["alpha"] == {}
    assert ubn["alpha"]["head_norm"] == [0.02] * 3
    # The shift of layer k at update t is (k + 1) t, half of it with the second norm of a folder.
    assert [layer["ratio"] for layer in ubn["shift"]] == [0.5] * 6
    assert [layer["ratio"] for layer in rms["shift"]] == [1.0] * 6
    assert bn["distances"][1] == {
        **{"layer": "block_0/norm_0", "d": 16},
        "absolute": {"value": 25.0, "lower": 25.0, "upper": 25.0},
        "relative": {"value": 12.5, "lower": 12.5, "upper": 12.5},
    }
    loose = bn["looseness"]
    assert loose["layers"] == list(LAYERS)
    assert loose["epochs"] == [4, 8, 12, 15]  # 5, 10, 15, 20 of 20 updates in 15 epochs
    assert loose["bounds"]["lower_mean"] == {"by_layer": [0.5] * 3, "by_epoch": [0.5] * 4}
    assert loose["bounds"]["upper_moments"]["by_epoch"] == [3.0, 1.5, 1.0, 0.75]  # 30 / (2 t)


def test_tables(record):
    made = tables(record)
    assert list(made) == [
        *("results", "pairs", "cost", "shift", "layers", "distances", "bounds", "epochs", "alpha"),
    ]
    bn, ubn, rms = cells(made["results"])
    a, b = (np.array(CORRECT[norm]) / 3.6 for norm in ("bn", "ubn"))
    test = stats.ttest_rel(b, a)
    low, high = test.confidence_interval()
    assert bn["test accuracy, %"] == f"{a.mean():.2f} ± {a.std(ddof=1):.2f}"
    assert (bn["minus BatchNorm"], bn["95 % interval"], bn["p"]) == ("-", "-", "-")
    assert ubn["minus BatchNorm"] == f"{(b - a).mean():+.2f}"
    assert ubn["95 % interval"] == f"{low:+.2f} to {high:+.2f}"
    assert ubn["p"] == f"{test.pvalue:.2g}"
    assert ubn["p (Holm)"] == f"{2 * test.pvalue:.2g}"
    assert rms == {**ubn, "method": "UnitizedBatchNorm (rms)"}
    (bn, ubn, rms) = cells(made["cost"])
    assert bn["epochs to 97 %"] == "15.0 ± 0.0"
    assert bn["reached it"] == "3 of 3"
    assert (ubn["epochs, minus BatchNorm"], ubn["95 % interval"]) == ("+0.0", "-")
    assert [row["time / BatchNorm"] for row in (bn, ubn, rms)] == ["-", "1.000 ± 0.000", "-"]
    assert ubn["probing, % of the updates"] == "6.2 ± 0.0"  # 0.25 s of 4 s
    assert made["cost"].caption.endswith(
        "time of the probe, by itself, as a share of that of the updates, which includes it"
    )
    assert tables({**record, "format": 1})["cost"].caption.endswith(
        "time of the probe, which the time per step leaves out, as a share of that of the updates"
    )
    ubn, rms = cells(made["shift"])
    halved = ["3", "0", "0.50 to 0.50"]
    assert list(ubn.values()) == [
        "UnitizedBatchNorm (reference)",
        *halved,
        *halved,
        "36",
        "0",
        "0e+00",
    ]
    assert list(rms.values())[1:4] == ["0", "0", "1.00 to 1.00"]
    layers = cells(made["layers"])
    assert len(layers) == 2 * 2 * 3
    assert layers[0]["moved less"] == "UnitizedBatchNorm (reference)"
    assert layers[-1]["moved less"] == "neither"
    assert cells(made["alpha"])[1] == {
        **{"layer": "block_0/norm_0", "UnitizedBatchNorm (reference)": "0.010 ± 0.000"},
        "UnitizedBatchNorm (rms)": "0.010 ± 0.000",
    }


def test_target_that_not_all_reach(tmp_path):
    run = make_run(tmp_path / "a")
    record = make_record(combine([run.folder], target=1.0), "")
    assert cells(tables(record)["cost"])[0]["reached it"] == "2 of 2"
    for arm in record["arms"]:
        for row in arm["runs"]:
            row["probe_seconds"] = 0.0
    assert "probing, % of the updates" not in cells(tables(record)["cost"])[0]
    path = run.folder / "ubn-seed1" / "eval.jsonl"
    path.write_text(path.read_text().replace('"accuracy": 1.0', '"accuracy": 0.99'))
    _, ubn = cells(tables(make_record(combine([run.folder], target=1.0), ""))["cost"])
    assert ubn["epochs to 100 %"] == "15.0"  # One seed has no spread.
    assert (ubn["reached it"], ubn["epochs, minus BatchNorm"]) == ("1 of 2", "-")


def test_csv_has_all_digits(record):
    rows = list(csv.DictReader(to_csv(tables(record)["results"]).splitlines()))
    a = 100 * np.array(CORRECT["bn"]) / 360
    assert float(rows[0]["test accuracy, % (mean)"]) == pytest.approx(a.mean(), rel=1e-14)
    assert float(rows[0]["test accuracy, % (std)"]) == pytest.approx(a.std(ddof=1), rel=1e-12)
    assert rows[0]["95 % interval (low)"] == ""
    assert float(rows[1]["95 % interval (low)"]) < float(rows[1]["95 % interval (high)"])


def test_files_and_terminal(folders, tmp_path, capsys):
    out = tmp_path / "out"
    words = [*map(str, folders), "--out", str(out), "--record", str(tmp_path / "new" / "r.json")]
    assert main([*words, "--every-table"]) == 0
    printed = capsys.readouterr().out
    for expected in ("UnitizedBatchNorm (rms)", "Alpha by depth", "Bounds over distance", "3 of 3"):
        assert expected in printed
    assert {path.suffix for path in out.iterdir()} == {".html", ".json", ".md", ".csv"}
    record = json.loads((out / "record.json").read_text())
    assert (tmp_path / "new" / "r.json").read_text() == (out / "record.json").read_text()
    assert record["command"] == f"python -m experiments compare {folders[0]} {folders[1]}"
    made = tables(record)
    assert all(to_markdown(table) in (out / "tables.md").read_text() for table in made.values())
    page = Outline((out / "report.html").read_text())
    assert all(reference.startswith("#") for reference in page.references)
    text = " ".join(page.text.split())
    assert "figure-differences" in page.ids
    for expected in (
        *(
            "UnitizedBatchNorm (rms) on digits & <more>",
            "abc123",
            "--norm.unit rms",
            "Looseness of every",
        ),
        *(cells(made["results"])[1].values(),),
    ):
        for cell in [expected] if isinstance(expected, str) else expected:
            assert cell in text
    assert main([*words]) == 1
    error = capsys.readouterr().err
    assert f"`out` (='{out}') exists, and results are never overwritten; give another" in error


def test_bad_runs_leave_nothing(folders, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*map(str, folders), "--base", "gn", "--out", str(out)]) == 1
    assert "`base` (='gn')" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_probed(tmp_path):
    run = make_run(tmp_path / "a", norms=("none", "gn"), layers=())
    made = tables(make_record(combine([run.folder]), ""))
    assert list(made) == ["results", "cost"]


def test_train_command_gives_the_configuration():
    tyro = pytest.importorskip("tyro")
    config = TrainConfig(
        norms=("gn", "none"),
        norm=NormConfig(unit=0.25, momentum=0.123456789),
        optim=OptimConfig(epochs=3),
    )
    assert tyro.cli(TrainConfig, args=train_command(config).split()[4:]) == config


def test_markdown_escapes():
    table = Table("a", "", "", (Column("x|y"),), [("a|b",)])
    assert to_markdown(table) == "| x\\|y |\n|---|\n| a\\|b |\n"


def test_a_norm_of_which_nothing_is_finite(tmp_path):
    def rows(step, layer, value):
        bad = {"reason": "NaN", "exact": False} | dict.fromkeys(("value", "relative"), "nan")
        return ics_row(step, layer, value) | bad

    run = make_run(tmp_path / "a", rows=rows, row={"alpha": {}, "accuracy": "nan"})
    compared = combine([run.folder])
    record = json.loads(to_json(make_record(compared, "")))
    for table in tables(record).values():
        list(table.cells())
    assert "<html" in comparison_page(compared, record, tables(record))


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_final_loss_that_is_not_finite(tmp_path, loss):
    """It is a string in summary.json; the tables show it, and who it is."""
    bn = make_run(tmp_path / "a", norms=("bn",)).folder
    row = {"cross_entropy": loss, "accuracy": 0.5, "not_finite": 180 if loss == "nan" else 0}
    ubn = make_run(tmp_path / "b", norms=("ubn",), row=row).folder
    record = json.loads(to_json(make_record(combine([bn, ubn]), "")))
    table = tables(record)["results"]
    cells = dict(zip([c.name for c in table.columns], list(table.cells())[1], strict=True))
    assert cells["test accuracy, %"].startswith("50.00")
    assert cells["cross-entropy, nats"] in ("-", "inf", "inf ± nan", "nan ± nan", "inf ± -")
    named = "UnitizedBatchNorm, seed 1: logits NaN for 180 of 360 images" in table.caption
    assert named == (loss == "nan")
