"""What the command lines share: parsing, and errors of one line instead of a traceback."""

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console

from experiments.common.checks import with_local_paths
from experiments.common.errors import NonFiniteLossError, Preempted
from experiments.common.help import for_help

Config = TypeVar("Config")


def command_line(prog: str, arguments: Sequence[str] | None, *without: str) -> str:
    """Return the command as it is to be repeated, on any machine.

    Args:
        prog: How the program is called.
        arguments: As for ``run_cli``.
        *without: Options to leave out with their value: where results are to be written.

    Example:
        >>> command_line("python -m x", ["a b", "--json", "f", "--n", "2"], "--json")
        "python -m x 'a b' --n 2"
    """
    words = sys.argv[1:] if arguments is None else arguments
    kept = [
        word
        for word, before in zip(words, ["", *words], strict=False)
        if not {word.partition("=")[0], before} & set(without)
    ]
    return " ".join([prog, *map(shlex.quote, kept)])


def command(
    name: str, config_type: type[Config], run: Callable[[Config, Console], Any]
) -> Callable[..., int]:
    """Return the ``main`` of a command: it parses its arguments and returns the exit status.

    Args:
        name: As in ``experiments.COMMANDS``.
        config_type: Dataclass of the options: each has its help below it, is a ``Path`` where it is
            a file or folder, and is checked when made, but for what needs the disk or the data.
        run: Does the work; prints to the console.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        """Run the command line; return the exit status."""
        prog = f"python -m experiments {name}"
        return run_cli(prog, config_type, arguments, lambda config: run(config, Console()))

    return main


def run_cli(
    prog: str,
    config_type: type[Config],
    arguments: Sequence[str] | None,
    run: Callable[[Config], Any],
    *,
    usual: Collection[str] | None = None,
    default: Config | None = None,
    description: str | None = None,
) -> int:
    """Parse ``arguments`` into a configuration and run it.

    Args:
        prog: How the program is called, for its help.
        config_type: Dataclass of the options.
        arguments: Command line without the program's name; None for this process's.
        run: Does the work.
        usual: The options that ``--help`` lists, ``--help-all`` having the rest; None: all.
        default: Where options start from. Default: theirs.
        description: What the help begins with. Default: the docstring of the class.

    Returns:
        Exit status: 0, also when asked to stop; 1 after an error, with its message on standard
        error; 130 after an interruption at the keyboard; 141, as a shell says it, if nobody reads
        the output any more, as after ``| head``. (An option that cannot be parsed ends the process
        with status 2, as is customary.)
    """
    try:
        try:
            words = list(sys.argv[1:] if arguments is None else arguments)
            if {"-h", "--help", "--help-all"} & set(words):
                _help(prog, config_type, words, usual, default, description)
            config = tyro.cli(
                config_type, prog=prog, args=words, default=default, description=description
            )
            run(with_local_paths(config))
        finally:
            sys.stdout.flush()
    except (ValueError, NonFiniteLossError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Preempted:
        return 0
    except BrokenPipeError:
        # What is left to write is dropped, or the interpreter would complain of it as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted; what had been saved is complete", file=sys.stderr)
        return 130
    return 0


def _help(
    prog: str,
    config_type: type[Any],
    words: Sequence[str],
    usual: Collection[str] | None,
    default: Any,
    description: str | None,
) -> None:
    """Print the help and exit with status 0."""
    everything = usual is None or "--help-all" in words
    options = for_help(config_type, default, None if everything else usual)
    if description is None:
        description = inspect.cleandoc(config_type.__doc__ or "")
    if not everything:
        description += f"\n\nThese are the usual options; {prog} --help-all lists all."
    tyro.cli(options, prog=prog, args=["--help"], description=description)
