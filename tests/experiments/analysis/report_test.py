"""What a run says at its end."""

import io
import json

import pytest
from rich.console import Console

from experiments.analysis import report
from experiments.common.console import CommandConsole, Output, output
from experiments.common.statistics import mean_std
from experiments.common.table import mean_std_column
from tests.experiments.handmade import make_run


def test_time_of_a_norm_that_is_probed_against_one_that_is_not(tmp_path):
    versions = {"devices": ["cpu"], "cpus": 2, "cpu_model": "a"}
    results = make_run(tmp_path / "run", norms=("bn", "ubn", "none"), versions=versions)
    report.print_results(results, 20, Console(file=(output := io.StringIO()), width=200))
    assert (
        "Time per step, UnitizedBatchNorm / BatchNorm: 1.00 (median over pairs)"
        in output.getvalue()
    )
    assert (
        "Time per step, no norm / BatchNorm: 1.00 (median over pairs; only BatchNorm is "
        in output.getvalue()
    )


def test_report_helpers():
    rows = [{"step": 5, "accuracy": 0.9}, {"step": 10, "accuracy": 0.97}]
    assert report.updates_to(rows, 0.97) == 10
    assert report.updates_to(rows, 0.98) is None
    column = mean_std_column("", 3)
    assert column.text(mean_std([1.0])) == "1.000"
    assert column.text(mean_std([1.0, 3.0])) == "2.000 ± 1.414"


@pytest.mark.parametrize("norms", [5, 6])
def test_final_table_of_many_norms_has_one_row_each(norms):
    results = [
        {"norm": f"norm{i}", "seed": 0, "accuracy": 0.9 + i / 100, "updates_to_target": None}
        | {"ms_per_step": 1.0, "alpha": {"head_norm": 0.5} if i == 0 else {}}
        for i in range(norms)
    ]
    table = report.result_table(results, "title", 0.97)
    names = [f"norm{i}" for i in range(norms)]
    headers = [column.name for column in table.columns]
    cells = list(table.cells())
    if norms == 5:
        assert headers == ["", *names]
        assert cells[-1] == ["mean alpha, head_norm", "0.500", "-", "-", "-", "-"]
    else:
        assert headers == ["", "test accuracy, %", "updates to 97 %", "time per step, ms"]
        assert [row[0] for row in cells] == names
        assert cells[5] == ["norm5", "95.00", "- (0 of 1 reached it)", "1.00"]


def test_programs_get_numbers(tmp_path, capsys):
    versions = {"devices": ["cpu"], "cpus": 2, "cpu_model": "a"}
    results = make_run(tmp_path / "run", norms=("bn", "gn"), versions=versions)
    with output(Output("json", quiet=True)):
        report.print_results(results, 10, CommandConsole())
    printed = map(json.loads, capsys.readouterr().out.splitlines())
    tables = {table["table"]: table for table in printed}
    found = [row["test accuracy, %"] for row in tables["runs"]["rows"]]
    assert found == [100 * row["accuracy"] for row in results.summary["results"]]
