"""The script that people fork: one page, complete, of nothing but the library and its friends."""

import ast
import io
from pathlib import Path

import pytest
from PIL import Image

from experiments import minimal

SOURCE = Path(minimal.__file__).read_text()


@pytest.mark.slow
def test_it_trains_measures_and_draws(tmp_path, capsys):
    path = tmp_path / "a.png"
    minimal.main(["--steps", "30", "--every", "10", "--out", str(path)])
    printed = capsys.readouterr().out
    assert "norm 2" in printed
    accuracies = [float(word) for word in printed.replace("%", " ").split() if word[:2].isdigit()]
    assert max(accuracies) > 50  # chance is 10
    assert Image.open(io.BytesIO(path.read_bytes())).width > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every", "0"], "--every must be from 1 to --steps"),
        (["--steps", "5"], "--every must be from 1 to --steps"),
        (["--out", __file__], "exists, or its folder does not"),
        (["--out", "no-folder/a.png"], "exists, or its folder does not"),
    ],
)
def test_bad_options_end_before_anything_is_trained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        minimal.main(arguments)
    assert message in capsys.readouterr().err


def test_it_is_one_page_that_imports_no_other_room():
    assert SOURCE.count("\n") <= 150
    nodes = list(ast.walk(ast.parse(SOURCE)))
    imported = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    assert not [name for name in imported if name.split(".")[0] == "experiments"]
