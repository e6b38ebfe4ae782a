"""The table of a sweep, from run folders made by hand."""

import json

from experiments.studies.sweep import run, sweeps
from experiments.studies.sweep.table import sweep_table
from tests.experiments.handmade import make_run

BN = sweeps.BASE
UBN = sweeps.ubn(BN, unit="sample")


def test_there_is_no_difference_where_the_first_method_failed(tmp_path):
    """Not against another one, under a caption that says the first."""
    for config, norm in ((BN, "ubn"), (UBN, "gn")):
        made = make_run(tmp_path / norm, norms=(norm,))
        made.folder.rename(run.folder_of(config, tmp_path))
    first = sweeps.change(BN, norms=("none",))
    failed = run.folder_of(first, tmp_path)
    failed.mkdir()
    (failed / "failed.json").write_text(json.dumps({"reason": "loss is NaN at update 3"}))
    setting = run.compare_setting("a", (first, BN, UBN), tmp_path)
    table = sweep_table({"question": "Is it so?", "settings": [setting]})
    rows = [dict(zip([c.name for c in table.columns], r, strict=True)) for r in table.cells()]
    assert [row["method"].split()[0] for row in rows] == [
        "UnitizedBatchNorm",
        "GroupNorm",
        "failed:",
    ]
    assert rows[2]["method"].startswith("failed: --norms none")
    against = ("minus the first", "95 % interval", "p", "relative shift, ratio", "moved less")
    assert {row[name] for row in rows for name in against} == {"-"}
    assert rows[0]["test accuracy, %"] == "100.00 ± 0.00"
    assert "none where that failed" in table.caption
