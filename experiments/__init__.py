"""Training jobs: the only place that knows optax, orbax, data sets and the command line."""

import os
import sys


def _is_command() -> bool:
    """Whether this process is ``python -m experiments...``, and not the user's own program."""
    words = sys.orig_argv
    at = words.index("-m") + 1 if "-m" in words else len(words)
    return at < len(words) and words[at].split(".")[0] == "experiments"


# Commands draw into files, with no backend chosen. That of a notebook, in whose shell they may be
# started, need not be installed here, and matplotlib then fails as it is imported.
if _is_command():
    os.environ.pop("MPLBACKEND", None)
