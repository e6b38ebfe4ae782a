"""Statistics of finished runs: n, mean, standard deviation, paired differences, shift, alpha."""

from experiments.analysis.compare.combine import Arm as Arm
from experiments.analysis.compare.combine import Compared as Compared
from experiments.analysis.compare.combine import combine as combine
from experiments.analysis.compare.record import make_record as make_record
from experiments.analysis.compare.tables import tables as tables
