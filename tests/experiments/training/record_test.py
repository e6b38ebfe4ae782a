"""Records: rows come back as they were, and go back to the length of a checkpoint."""

import json
import math

import pytest

from experiments.benchmarks.faults.events import read_events, read_scalars
from experiments.common import files
from experiments.common.files import missing, read_rows
from experiments.training.record import Recorder

ROWS = [{"step": 1, "loss": 0.1 + 0.2, "name": "a"}, {"step": 2, "loss": math.inf}]


def test_rows_come_back(tmp_path):
    with Recorder(tmp_path / "run") as recorder:
        recorder.write("train", ROWS)
        recorder.write_lines("other", [{"step": 1, "x": math.nan}])
    assert read_rows(tmp_path / "run" / "train.jsonl") == ROWS
    assert math.isnan(read_rows(tmp_path / "run" / "other.jsonl")[0]["x"])
    assert read_rows(tmp_path / "none.jsonl") == []
    scalars = read_scalars(tmp_path / "run" / "tensorboard")
    assert scalars == [("train/loss", 1, pytest.approx(0.3))]


def test_a_folder_is_not_begun_twice(tmp_path):
    Recorder(tmp_path / "run").close()
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "run")


def test_back_to_a_checkpoint(tmp_path):
    folder = tmp_path / "run"
    with Recorder(folder) as recorder:
        recorder.write("train", [{"step": 1, "loss": 1.0}])
        lengths = recorder.lengths()
        assert sorted(name.split("/")[0] for name in lengths) == ["tensorboard", "train.jsonl"]
        recorder.write("train", [{"step": 2, "loss": 2.0}])
        recorder.write("eval", [{"step": 2, "accuracy": 0.5}])
    assert json.loads(json.dumps(lengths)) == lengths
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    (events,) = (folder / "tensorboard").iterdir()
    events.write_bytes(events.read_bytes()[:-3])  # The last record is cut.
    with pytest.raises(ValueError, match=r"the last of the records in .* is cut off"):
        list(read_events(events))
    assert missing(folder, lengths) == []
    # Twice, as after two kills within one second: each has its own file of events.
    for value in (20.0, 30.0):
        with Recorder(folder, lengths) as recorder:
            assert read_rows(folder / "train.jsonl") == [{"step": 1, "loss": 1.0}]
            assert not (folder / "eval.jsonl").exists()
            recorder.write("train", [{"step": 2, "loss": value}])
        assert len(list((folder / "tensorboard").iterdir())) == 2
    assert [row["loss"] for row in read_rows(folder / "train.jsonl")] == [1.0, 30.0]
    expected = [("train/loss", 1, 1.0), ("train/loss", 2, 30.0)]
    assert read_scalars(folder / "tensorboard") == expected


def test_numbers_that_are_not_finite_come_back_as_numbers(tmp_path):
    """Wherever they stand; what is text stays so, even if it says "nan"."""
    content = {
        "seconds": math.inf,
        "results": [{"norm": "nan", "folder": "inf", "cross_entropy": math.nan, "step": 3}],
        "alpha": {"layer": "inf", "inf": -math.inf},
    }
    files.write_json(tmp_path / "a.json", content)
    found = files.read_numbers(tmp_path / "a.json")
    assert math.isnan(found["results"][0].pop("cross_entropy"))
    del content["results"][0]["cross_entropy"]
    assert found == content


def test_what_is_missing(tmp_path):
    with Recorder(tmp_path / "run") as recorder:
        recorder.write("train", ROWS)
        recorder.write("eval", ROWS)
        lengths = recorder.lengths()
    (tmp_path / "run" / "eval.jsonl").unlink()
    (tmp_path / "run" / "train.jsonl").write_text("{}\n")
    assert missing(tmp_path / "run", lengths) == ["eval.jsonl", "train.jsonl"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_file_that_is_not_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not JSON \(.*restore it from a copy"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        files.read_json(tmp_path)


@pytest.mark.parametrize("line", [b"{", b"\xff", b"3", b'["step"]'])
def test_a_line_that_is_no_row(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"line 2 of .*a\.jsonl is not JSON"):
        read_rows(tmp_path / "a.jsonl")


def test_a_line_that_is_not_json(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1}\n{"step": 2\n')
    with pytest.raises(ValueError, match=r"line 2 of .*train.jsonl is not JSON .*restore the file"):
        read_rows(tmp_path / "train.jsonl")


def test_a_file_is_replaced_or_left_alone(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": math.nan})
    assert files.read_json(path) == {"a": "nan"}
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    with pytest.raises(FileNotFoundError), files.replacing(path) as temporary:
        temporary.with_name("none").unlink()
    assert files.read_json(path) == {"a": "nan"}
    assert list(tmp_path.iterdir()) == [path]
