"""Wheel and sdist: the library and nothing else; the wheel works where only it is installed."""

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import unitnorm_jax

ROOT = Path(__file__).parents[1]
# Environments, builds and runs of a checkout; experiments/results has megabytes of records.
NOT_SOURCES = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared", "results")
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('dist'))"
# What the wheel may not need: development dependencies, and what stands beside it.
ABSENT = ("matplotlib", "chex", "beartype", "sklearn", "tyro", "experiments", "tests")
IMPORT_ALL = f"""
import importlib, importlib.metadata, json, pkgutil, sys
sys.modules |= dict.fromkeys({ABSENT[:-2]!r})
import unitnorm_jax
found = {{"unitnorm_jax": unitnorm_jax}}
for info in pkgutil.walk_packages(unitnorm_jax.__path__, "unitnorm_jax."):
    found[info.name] = importlib.import_module(info.name)
print(json.dumps({{
    "files": {{name: module.__file__ for name, module in found.items()}},
    "names": {{name: dir(module) for name, module in found.items()}},
    "lazy": {{name: getattr(unitnorm_jax, name).__module__ for name in unitnorm_jax._NAMES}},
    "beside": [name for name in {ABSENT[-2:]!r} if importlib.util.find_spec(name)],
    "versions": [unitnorm_jax.__version__, importlib.metadata.version("unitnorm-jax")],
}}))
"""


def run(*command, cwd):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


def library():
    """The files of the library in this tree."""
    files = (ROOT / "unitnorm_jax").rglob("*")
    return {
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix == ".py" or path.name == "py.typed"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of this tree, and the wheel of this sdist."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    sdist = tree / "dist" / run(sys.executable, "-c", BUILD, "build_sdist", cwd=tree)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    wheel = source / "dist" / run(sys.executable, "-c", BUILD, "build_wheel", cwd=source)
    return sdist, wheel


def test_wheel_is_the_library_alone(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    rest = {name for name in names if not name.startswith("unitnorm_jax/")}
    assert names - rest == library()
    assert {name.split("/")[0] for name in rest} == {
        f"unitnorm_jax-{unitnorm_jax.__version__}.dist-info"
    }
    assert any(name.endswith("/licenses/LICENSE") for name in rest)


def test_sdist_is_the_library_and_what_builds_it(built):
    with tarfile.open(built[0]) as sdist:
        names = {file.name.partition("/")[2] for file in sdist if file.isfile()}
    names = {name for name in names if ".egg-info/" not in name}
    beside = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert names == library() | beside


def test_wheel_in_an_environment_without_the_tree(built, tmp_path):
    """It sees the dependencies, but no path of the tree."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    options = ("--no-index", "--no-deps", "--quiet", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", *options)
    run(*pip, built[1], cwd=tmp_path)
    (site,) = environment.glob("lib/python*/site-packages")
    # Files .pth in there, as of an editable install of this tree, are not followed.
    dependencies = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(dependencies)))
    found = json.loads(run(python, "-I", "-c", IMPORT_ALL, cwd=tmp_path))
    assert len(found["files"]) == len(library()) - 1  # py.typed is no module.
    for file in found["files"].values():
        assert Path(file).is_relative_to(site)
    for path in (ROOT / "unitnorm_jax").rglob("__init__.py"):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("unitnorm_jax"):
                assert {alias.asname or alias.name for alias in node.names} <= {
                    *found["names"][package]
                }
    assert set(found["lazy"]) >= {"ICSProbe", "UnitizedBatchNorm", "em_distance"}
    assert all(module.startswith("unitnorm_jax.") for module in found["lazy"].values())
    assert found["beside"] == []
    assert found["versions"] == [unitnorm_jax.__version__] * 2


def test_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # The version stands in unitnorm_jax/__init__.py alone.
    assert "version" not in project["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" not in cited
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "references"} <= set(cited)
    assert [author["name"] for author in cited["authors"]] == [
        author["name"] for author in project["project"]["authors"]
    ]
    assert cited["license"] == project["project"]["license"]
    assert cited["keywords"] == project["project"]["keywords"]
    # Extras of what the wheel ships; the rest are dependency groups, and `dev` has all of them but
    # the compiler of GPUs, which has an environment apart.
    assert set(project["project"]["optional-dependencies"]) == {"cuda", "plot", "tpu"}
    groups = project["dependency-groups"]

    def included(name):
        names = [entry["include-group"] for entry in groups[name] if isinstance(entry, dict)]
        return {name}.union(*map(included, names))

    assert included("dev") == set(groups) - {"gpu-compile"}


def test_lists_of_rooms():
    """CONTRIBUTING.md has a line for each room of both packages."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed, parents = set(), []
    for line in text.splitlines():
        words = line.split()
        if line.startswith("    ") and words and words[0].endswith("/"):
            depth = (len(line) - len(line.lstrip())) // 2 - 2
            parents = [*parents[:depth], words[0].rstrip("/")]
            listed.add("/".join(parents))
            assert len(words) > 2, line
    rooms = {
        str(path.parent.relative_to(ROOT))
        for package in ("unitnorm_jax", "experiments")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert rooms <= listed
    assert all((ROOT / name).is_dir() for name in listed)
