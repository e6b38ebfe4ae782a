"""Checkpoints of a run: orbax, with checksums, and errors that say which step and what to do."""

from experiments.checkpoint.content import Checkpoint as Checkpoint
from experiments.checkpoint.content import CheckpointError as CheckpointError
from experiments.checkpoint.content import all_finite as all_finite
from experiments.checkpoint.content import checksums as checksums
from experiments.checkpoint.content import state_arrays as state_arrays
from experiments.checkpoint.read import restore as restore
from experiments.checkpoint.read import saved_steps as saved_steps
from experiments.checkpoint.recover import newest as newest
from experiments.checkpoint.write import Checkpoints as Checkpoints
