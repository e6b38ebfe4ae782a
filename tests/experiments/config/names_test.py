"""Names that the command line knows without JAX are those of what there is."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from experiments import methods, models
from experiments.config import methods as method_names
from experiments.config.data import DATASETS
from experiments.config.experiment import Network
from experiments.config.methods import NormConfig
from experiments.config.networks import TITLES
from experiments.config.probe import Measure
from experiments.data import _LOADERS
from unitnorm_jax.functional import check_unit
from unitnorm_jax.ics.probe._others import MEASURES

ROOT = Path(__file__).parents[3]


def test_names_are_those_of_the_registries():
    assert tuple(methods.NORMS) == method_names.NORMS
    assert tuple(methods.CONVS) == method_names.CONVS
    assert set(_LOADERS) == set(DATASETS)
    assert get_args(Measure) == MEASURES
    assert set(get_args(Network)) == set(TITLES) - {"tiny"} == set(models.NETWORKS) - {"tiny"}


@pytest.mark.parametrize("unit", [*method_names.UNITS, 0.5, 0.0, -1.0, "Rms", True, float("inf")])
def test_units_are_those_of_the_layer(unit):
    def accepts(check):
        try:
            check(unit)
        except ValueError:
            return False
        return True

    assert accepts(lambda unit: NormConfig(unit=unit)) == accepts(inspect.unwrap(check_unit))


@pytest.mark.parametrize("words", [["train", "--help"], ["train", "--norms", "bm"]])
def test_jax_is_not_loaded_to_read_options(words):
    code = (
        "import sys\n"
        "from experiments.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert not {'jax', 'flax', 'matplotlib', 'scipy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "noqa" not in done.stdout
