"""All commands: ``python -m experiments`` lists them, with a NAME it runs one."""

import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import metadata

from experiments import COMMANDS
from experiments.common.interrupt import ends_at_once


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: python -m experiments NAME [options]; NAME --help says more\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:{width}}  {what}")
        return 0
    if words[0] == "--version":
        try:
            print(f"unitnorm_jax {metadata.version('unitnorm-jax')}")
        except metadata.PackageNotFoundError:
            return _missing("unitnorm_jax")
        return 0
    name = words[0].replace("-", "_").lower()
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}."
        print(f"error: there is no command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    try:
        with ends_at_once():
            module = importlib.import_module(f"experiments.{COMMANDS[name][0]}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "experiments"):
            raise
        return _missing(missing)
    return module.main(words[1:])


def _missing(package: str) -> int:
    """Say it without ``cli.message``: what that needs may be missing."""
    way_out = "In the checkout: uv pip install -e . --group experiments."
    print(f"error: {package} is not installed. {way_out}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
