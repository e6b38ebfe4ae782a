"""Statistics of finished runs: n, mean, standard deviation, paired differences, shift, alpha."""

from experiments.compare.combine import Arm as Arm
from experiments.compare.combine import Compared as Compared
from experiments.compare.combine import combine as combine
from experiments.compare.record import make_record as make_record
from experiments.compare.tables import tables as tables
