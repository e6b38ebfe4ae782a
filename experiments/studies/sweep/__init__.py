"""Sweeps: questions about the method, each answered by runs."""

from experiments.studies.sweep.run import run_sweep as run_sweep
from experiments.studies.sweep.sweeps import SWEEPS as SWEEPS
from experiments.studies.sweep.sweeps import Setting as Setting
from experiments.studies.sweep.sweeps import Sweep as Sweep
