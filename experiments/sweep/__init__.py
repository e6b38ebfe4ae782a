"""Sweeps: questions about the method, each answered by runs."""

from experiments.sweep.run import run_sweep as run_sweep
from experiments.sweep.sweeps import SWEEPS as SWEEPS
from experiments.sweep.sweeps import Setting as Setting
from experiments.sweep.sweeps import Sweep as Sweep
