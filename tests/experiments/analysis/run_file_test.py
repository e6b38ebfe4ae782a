"""A run in one file says what its folder says."""

import dataclasses
import json
import math

import pytest

from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.record import to_json
from experiments.analysis.results import read_results
from experiments.analysis.run_file import write_run_file
from tests.experiments.handmade import make_run


def test_the_file_reads_as_the_folder(tmp_path):
    folder, path = make_run(tmp_path / "run").folder, tmp_path / "records" / "run.json"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "run_dir": str(folder)}))
    write_run_file(folder, path)
    assert str(tmp_path) not in path.read_text()
    whole, small = read_results(folder), read_results(path)
    config = dataclasses.replace(whole.config, run_dir=None)
    assert small._replace(folder=folder, runs=[]) == whole._replace(config=config, runs=[])
    for run, kept in zip(whole.runs, small.runs, strict=True):
        assert (run.norm, run.seed) == (kept.norm, kept.seed)
        for rows, kept_rows in zip(run[2:], kept[2:], strict=True):
            assert len(rows) == len(kept_rows)
            for row, kept_row in zip(rows, kept_rows, strict=True):
                assert row.keys() == kept_row.keys()
                for name, value in row.items():
                    if isinstance(value, float) and math.isfinite(value):
                        assert kept_row[name] == pytest.approx(value, rel=1e-5)
                    else:
                        assert str(kept_row[name]) == str(value)
    records = [make_record(combine([place]), "a command") for place in (folder, path)]
    assert records[0]["arms"][0]["runs"] == records[1]["arms"][0]["runs"]


def test_lists_fill_lines():
    record = {"a": {"b": list(range(1000)), "c": ["x, y"] * 99, "d": [{"e": 1.5}] * 20, "f": []}}
    text = to_json(record)
    assert json.loads(text) == record
    lines = text.splitlines()
    assert max(map(len, lines)) <= 200
    assert len(lines) < 70
    assert to_json({"a": [1, {"b": math.nan}]}) == '{"a": [1, {"b": null}]}\n'


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="no file of a run"):
        read_results(path)
    write_run_file(make_run(tmp_path / "run").folder, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "runs": [{}]}))
    with pytest.raises(ValueError, match=r"damaged.*norm"):
        read_results(path)
