import csv

import numpy as np
import pytest

from experiments.studies.bounds import __main__ as command
from experiments.studies.bounds import study


def words(tmp_path, **changes):
    small = {"dimensions": (4,), "noises": (0.1, 1.0), "dimension": (4,), "samples": (2,)}
    options = {"out": (tmp_path / "new" / "run",), "repeats": (2,)} | small | changes
    return [
        word
        for name, values in options.items()
        for word in (f"--{name.replace('_', '-')}", *map(str, values))
    ]


def test_command_writes_a_figure_and_a_table_and_never_overwrites(tmp_path, capsys):
    assert command.main(words(tmp_path)) == 0
    with (tmp_path / "new" / "run" / "bounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (tmp_path / "new" / "run" / "bounds.png").read_bytes()[:4] == b"\x89PNG"
    assert tuple(rows[0]) == study.Row._fields
    assert len(rows) == 3 + 2 * 2 * 3 + 2 * 11
    assert all(
        float(r["lower"]) <= float(r["distance"]) <= float(r["bound"]) * 1.0001 for r in rows
    )
    for row in rows[:3]:
        d, alpha = int(row["dimension"]), float(row["alpha"])
        expected = (1 - alpha) * np.sqrt(2 * d) + alpha * np.sqrt(2)
        assert float(row["distance"]) == pytest.approx(expected, rel=1e-5)
    assert "proven exact" in capsys.readouterr().out
    before = (tmp_path / "new" / "run" / "bounds.csv").read_bytes()
    assert command.main(words(tmp_path)) == 1
    assert "results are never overwritten; give another --out." in " ".join(
        capsys.readouterr().err.split()
    )
    assert (tmp_path / "new" / "run" / "bounds.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimensions": (3,)}, "--dimensions [3] must be even and at least 2"),
        ({"noises": ()}, "--noises and --alpha-noise must be positive"),
        ({"alpha_noise": (-1.0,)}, "--noises and --alpha-noise must be positive"),
        ({"samples": (0,)}, "--dimension, --samples and --repeats must be at least 1"),
    ],
)
def test_bad_flags_are_named_before_anything_is_written(tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as status:
        command.main(words(tmp_path, **changes))
    assert status.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()
