"""``python -m experiments``: what it lists, what it runs, and what old names say."""

import ast
import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from experiments import COMMANDS
from experiments.__main__ import main

ROOT = Path(__file__).parents[2]


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)


def test_the_list_has_every_command_and_loads_nothing():
    done = run("-X", "importtime", "-m", "experiments")
    assert not {"jax", "flax", "tyro", "rich"} & {w.strip() for w in done.stderr.split("|")}
    for name, (_, what) in COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert what in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main(name):
    source = importlib.util.find_spec(f"experiments.{COMMANDS[name][0]}").origin
    body = ast.parse(Path(source).read_text()).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assigned = [node.targets for node in body if isinstance(node, ast.Assign)]
    assert "main" in names | {target.id for targets in assigned for target in targets}


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unitnorm_jax {metadata.version('unitnorm-jax')}\n"


def test_version_of_what_is_not_installed(capsys, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("experiments.__main__.metadata.version", version)
    assert main(["--version"]) == 1
    assert capsys.readouterr().err.startswith("error: unitnorm_jax is not installed. In the chec")


def test_what_is_not_installed_is_told_the_way():
    done = run(
        "-I",
        "-S",
        "-c",
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from experiments.__main__ import main
sys.exit(main(["train"]))
""",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: tyro is not installed. In the checkout: uv pip install -e . --group experiments.\n"
    )


def test_a_command_gets_its_words(capsys):
    assert main(["configs", "cifar10_resnet18"]) == 0
    assert "ResNet-18 on CIFAR-10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("benhc", "did you mean bench?"),
        ("TRIAN", "did you mean train?"),
        ("x", "choose from minimal"),
    ],
)
def test_an_unknown_command_is_told_the_way(word, message, capsys):
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert f"there is no command {word!r}" in error
    assert message in error


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bench", "bench"),
        ("readme", "publish"),
        ("micro_batch", "train digits_slices"),
        ("data.prepare", "prepare"),
        ("studies.noise.__main__", "noise"),
        ("bounds.speed", "bounds"),
    ],
)
def test_old_spellings_end_with_the_new_one(old, new):
    done = run("-m", f"experiments.{old}", "--help")
    assert done.returncode == 2
    assert (
        done.stderr == f"error: python -m experiments.{old} is now: python -m experiments {new}\n"
    )
