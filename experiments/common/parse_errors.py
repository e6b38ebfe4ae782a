"""What ``tyro`` says of a command line that it cannot parse, in one line."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

# What Python says of a value that is no number, and what it means.
_NOT_PARSED = (
    (r"invalid literal for int\(\) with base 10: (.*)", r"(=\2) must be a whole number"),
    (r"could not convert string to float: (.*)", r"(=\2) must be a number"),
    (
        r"Could not find valid parse for arguments: \[(.*)\]",
        r"(=\2) must be of the type in its help",
    ),
)


@contextlib.contextmanager
def one_line(prog: str) -> Iterator[None]:
    """Say tyro's errors in one line, in place of a box as wide as the terminal."""
    said, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # so that no word is broken
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as stop:
        text = said.getvalue()
        print(_unboxed(text, prog) if stop.code == 2 else text, file=sys.stderr)
        raise
    finally:
        del os.environ["COLUMNS"]
        if width is not None:
            os.environ["COLUMNS"] = width


def _unboxed(text: str, prog: str) -> str:
    r"""Return what a box says: the error, and the options that it suggests.

    Example:
        >>> _unboxed("╭─ Unrecognized ─╮\n│ No option --a. │\n│ Perhaps you meant: │\n"
        ...     "│   --b INT │\n╰─────╯", "p")
        'error: No option --a. Perhaps you meant --b. Options: p --help.'
        >>> _unboxed("╭─ Parsing error ─╮\n│ Error parsing --n: invalid literal for int() with "
        ...     "base 10: 'x' │\n╰─────╯", "p")
        "error: --n (='x') must be a whole number. Options: p --help."
    """
    lines = [line.strip(" │╭╮╰╯") for line in text.strip().splitlines()]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("─-")]
    # The title is in the rule above the box; where the terminal has no such letters, on its own.
    start = 1 if lines[0].startswith("─") or not rules else rules[0] + 1
    end = next((i for i in rules if i >= start), len(lines))
    meant = next((i for i, line in enumerate(lines) if line.startswith("Perhaps ")), len(lines))
    options = [word for line in lines[meant:] for word in re.findall(r"^--\w[\w.-]*", line)]
    error = " ".join(lines[start : min(end, meant)]).rstrip(".")
    error = re.sub(r"^Error parsing [A-Za-z][\w.]*: ", "", error)  # of a class, not an option
    error = re.sub(r"^Missing from .*?: (\S+) (.*?)\.? \(required\)$", r"\1 is missing: \2", error)
    for python, rule in _NOT_PARSED:
        error = re.sub(rf"^Error parsing (\S+): {python}$", rf"\1 {rule}", error)
    perhaps = f" Perhaps you meant {' or '.join(options)}." if options else ""
    error += "" if error.endswith((".)", "?")) else "."
    return f"error: {error}{perhaps} Options: {prog} --help."
