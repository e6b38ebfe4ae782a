"""Checkpoints of a run: orbax, with checksums, and errors that say which step and what to do."""

from experiments.training.checkpoint.content import Checkpoint as Checkpoint
from experiments.training.checkpoint.content import CheckpointError as CheckpointError
from experiments.training.checkpoint.content import all_finite as all_finite
from experiments.training.checkpoint.content import checksums as checksums
from experiments.training.checkpoint.content import state_arrays as state_arrays
from experiments.training.checkpoint.read import restore as restore
from experiments.training.checkpoint.read import saved_steps as saved_steps
from experiments.training.checkpoint.recover import newest as newest
from experiments.training.checkpoint.write import Checkpoints as Checkpoints
