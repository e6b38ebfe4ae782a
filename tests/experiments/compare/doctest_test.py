"""The examples in the docstrings of what compares, configures and sweeps."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        *("compare.combine", "compare.command", "compare.statistics", "compare.table"),
        *("configs.choose", "schedules", "sweep.sweeps"),
    ],
)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"experiments.{name}"))
    assert found.failed == 0
    assert found.attempted > 0
