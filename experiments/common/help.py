"""The text of ``--help``: short, with whole sentences, from the strings below the options."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Collection
from typing import Annotated, Any, get_type_hints

import tyro


def field_docs(cls: type) -> dict[str, str]:
    """Return the string below each field of a dataclass, as one paragraph."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source: Any = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except OSError:  # made by a program
            continue
        for field, below in itertools.pairwise(source.body):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs


def filled(text: str, width: int) -> str:
    r"""Return a description whose lines are no longer than ``width``; no word is broken.

    ``tyro`` appends a line that begins with a letter to the one above it, so all but the first of a
    paragraph are indented. Lines that are indented already, such as commands, stay as they are.

    Example:
        >>> print(filled("Count.\n\nOne two\nthree:\n    as it is\n", 12))
        Count.
        <BLANKLINE>
        One two
          three:
            as it is
    """
    lines: list[str] = []
    for line in text.strip().splitlines():
        if lines and line[:1].strip() and lines[-1][:1].strip():
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    fill = functools.partial(
        textwrap.fill,
        width=width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(
        fill(line, initial_indent="  " if above.strip() else "") if line[:1].strip() else line
        for above, line in itertools.pairwise(["", *lines])
    )


def for_help(
    cls: type, default: Any = None, shown: Collection[str] | None = None, prefix: str = ""
) -> type:
    """Return a dataclass of the same options, which ``tyro`` describes by whole paragraphs.

    Args:
        cls: A dataclass of options, some of which may be groups of options.
        default: Its values, which become defaults. Default: those of the class.
        shown: The options to list, as on the command line but with ``_``: ``"optim.epochs"``; None:
            all.
        prefix: What names begin with.

    Returns:
        The class; of use for the help alone.
    """
    docs, hints = field_docs(cls), get_type_hints(cls, include_extras=True)
    fields: list[Any] = []
    for field in dataclasses.fields(cls):
        name, hint = field.name, hints[field.name]
        value = field.default if default is None else getattr(default, name)
        if dataclasses.is_dataclass(value):
            extras = getattr(hint, "__metadata__", ())
            flat = any(getattr(extra, "name", None) == "" for extra in extras)
            group = for_help(type(value), value, shown, prefix if flat else f"{prefix}{name}.")
            hint, value = Annotated[group, *extras] if extras else group, group()
        else:
            hint = Annotated[hint, tyro.conf.arg(help=docs.get(name, ""))]
            if shown is not None and prefix + name not in shown:
                hint = Annotated[hint, tyro.conf.Suppress]
        given = () if value is dataclasses.MISSING else (dataclasses.field(default=value),)
        fields.append((name, hint, *given))
    made = dataclasses.make_dataclass(cls.__name__, fields, frozen=True)
    made.__doc__ = cls.__doc__
    return made
