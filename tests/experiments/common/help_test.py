"""The help: what is listed, and that sentences stay whole."""

import dataclasses
import re
from typing import Annotated

import pytest
import tyro

from experiments import train
from experiments.common.help import field_docs, for_help


@dataclasses.dataclass(frozen=True)
class Group:
    """A group."""

    size: int = 3
    """How large, in
    whole sentences."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options."""

    name: str = "x"
    """The name."""
    group: Group = Group()
    flat: Annotated[Group, tyro.conf.arg(name="")] = Group(4)


def words(text):
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def listed(options, capsys):
    with pytest.raises(SystemExit) as ended:
        tyro.cli(options, args=["--help"])
    assert ended.value.code == 0
    return words(capsys.readouterr().out)


def test_what_is_listed(capsys):
    assert field_docs(Options) == {"name": "The name."}
    whole = listed(for_help(Options), capsys)
    assert "--group.size INT How large, in whole sentences. (default: 3)" in whole
    assert "--size INT How large, in whole sentences. (default: 4)" in whole
    short = listed(for_help(Options, shown=("size",)), capsys)
    assert "--size INT" in short
    assert "--group.size" not in short
    assert "--name" not in short


def test_usual_options_of_training(capsys):
    for arguments, rare in ([["--help"], False], [["cifar10_resnet18", "--help-all"], True]):
        with pytest.raises(SystemExit) as ended:
            train.main(arguments)
        assert ended.value.code == 0
        shown = words(capsys.readouterr().out)
        for name in train.USUAL:
            assert f"--{name.replace('_', '-')} " in shown
        assert ("--data.threads" in shown) == rare
        assert ("--help-all lists all" in shown) == (not rare)
