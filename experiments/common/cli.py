"""What the command lines share: parsing, and errors of one line instead of a traceback."""

import dataclasses
import inspect
import io
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import tyro
from rich.console import Console

from experiments.common.checks import check_choice, with_local_paths
from experiments.common.console import FORMATS, CommandConsole, Output, output
from experiments.common.errors import NonFiniteLossError, Preempted
from experiments.common.help import filled, for_help
from experiments.common.parse_errors import one_line
from experiments.common.reasons import reason, way_out

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
        return run_cli(prog, config_type, arguments, lambda config: run(config, CommandConsole()))

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
    check: Callable[[Config], None] = lambda config: None,
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
        check: Raises ``ValueError`` where the options cannot be meant.

    Returns:
        Exit status: 0; 1 after an error, with its message on standard error; 2 where the options
        are wrong; 128 plus the number of a signal that stopped it; 141, as a shell says it, if
        nobody reads the output any more, as after ``| head``. (An option that cannot be parsed ends
        the process with status 2, as is customary.)
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the encoding lacks is escaped, as on standard error: names of files, and LANG=C.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            common, words = _common(words)
            if common.version:
                print(version_text())
                return 0
            if {"-h", "--help", "--help-all"} & set(words):
                _help(prog, config_type, words, usual, default, description)
            if any(word.startswith("--tyro-") for word in words):
                prog = "-".join(prog.split()[2:]) or prog  # Shells complete after one word.
            given: dict[str, Any] = {} if default is None else {"default": default}
            with one_line(prog):
                config = tyro.cli(
                    config_type, prog=prog, args=words, description=description, **given
                )
            config = with_local_paths(config)
            check(config)
        finally:
            sys.stdout.flush()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return _nobody_reads()
    with output(Output(common.format, common.quiet)):
        return _guarded(lambda: run(config), common.debug)


def _guarded(run: Callable[[], Any], debug: bool) -> int:
    """Run it; return the exit status, after one line about an error."""
    try:
        try:
            run()
        finally:
            sys.stdout.flush()
    except Preempted as stop:
        return stop.status
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:
        print("interrupted; what had been saved is complete", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {message(error)}", file=sys.stderr)
        return 1
    return 0


def message(error: Exception) -> str:
    """Return an error as a command reports it, without its traceback.

    Example:
        >>> message(ModuleNotFoundError("No module named 'grain'", name="grain"))
        'grain is not installed. In the checkout: uv pip install --group data.'
        >>> message(OSError(28, "No space left on device", "a/b"))
        'No space left on device (file a/b): make room.'
        >>> message(KeyError("x"))
        "KeyError: 'x'. This should not happen: --debug shows where it did."
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        group = next((g for g, names in _GROUPS.items() if package in names), "dev")
        return f"{package} is not installed. In the checkout: uv pip install --group {group}."
    if isinstance(error, OSError) and error.strerror:
        return f"{reason(error)}: {way_out(reason(error))}."
    if isinstance(error, ValueError | NonFiniteLossError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}. This should not happen: --debug shows where it did."


# Imported names, by the dependency group that has them.
_GROUPS = {
    "experiments": ("jinja2", "matplotlib", "optax", "orbax", "rich", "sklearn", "tensorboardX"),
    "bench": ("ott", "ot"),
    "data": ("grain", "mlxtend", "cv2", "PIL", "simplejpeg", "tensorflow_datasets"),
    "tf": ("tensorflow",),
}


class _Common(NamedTuple):
    """Options of every command."""

    version: bool = False
    quiet: bool = False
    debug: bool = False
    format: str = "table"


_SWITCHES = ("version", "quiet", "debug")
COMMON_HELP = (
    "Every command also knows --format {table,json,csv} (of tables; messages then go to standard "
    "error), --quiet (errors alone), --debug (tracebacks of errors), --version, and "
    "--tyro-print-completion {bash,zsh,tcsh}. NO_COLOR=1 turns colours off."
)


def _common(words: Sequence[str]) -> tuple[_Common, list[str]]:
    """Take the options of every command off a command line.

    Raises:
        ValueError: If there is no such format.
    """
    found: dict[str, Any] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name == "format":
            found["format"] = value if equals else next(left, "")
            check_choice("format", found["format"], FORMATS)
        elif word in (f"--{switch}" for switch in _SWITCHES):
            found[name] = True
        else:
            rest.append(word)
    return _Common(**found), rest


def version_text() -> str:
    """Return what ``--version`` prints."""
    return f"unitnorm_jax {metadata.version('unitnorm-jax')}"


def _nobody_reads() -> int:
    # What is left to write is dropped, or the interpreter would complain of it as it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _help(
    prog: str,
    config_type: type[Any],
    words: Sequence[str],
    usual: Collection[str] | None,
    default: Any,
    description: str | None,
) -> None:
    """Print the help and exit with status 0."""
    if not dataclasses.is_dataclass(config_type):  # One of several commands, which have their own.
        args = ["--help" if word == "--help-all" else word for word in words]
        tyro.cli(config_type, prog=prog, args=args, description=description)
    everything = usual is None or "--help-all" in words
    options = for_help(config_type, default, None if everything else usual)
    if description is None:
        description = inspect.cleandoc(config_type.__doc__ or "")
    if not everything:
        description += f"\n\nThese are the usual options; {prog} --help-all lists all."
    description = filled(f"{description}\n\n{COMMON_HELP}", shutil.get_terminal_size().columns)
    tyro.cli(options, prog=prog, args=["--help"], description=description)
