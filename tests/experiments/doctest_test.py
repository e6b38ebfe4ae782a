"""The examples in the docstrings of the experiments."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for p in (ROOT / "experiments").rglob("*.py") if ">>> " in p.read_text())


DEAR = {"ic_resnet.py", "kalman_resnet.py"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] if p.name in DEAR else []) for p in SOURCES],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_examples(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
    assert found.attempted > 0
