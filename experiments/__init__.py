"""Training jobs: the only place that knows optax, orbax, data sets and the command line."""

import os
import re
import sys

# `python -m experiments.NAME`, however spelled, or a file of it; not the user's own program.
_COMMAND = r"(-\w*m)?experiments(\.\w+)*|(.*/)?experiments/.*\.py"

# Commands draw into files, with no backend chosen. That of a notebook, in whose shell they may be
# started, need not be installed here, and matplotlib then fails as it is imported.
if any(re.fullmatch(_COMMAND, word) for word in sys.orig_argv[1:]):
    os.environ.pop("MPLBACKEND", None)
