"""Who may import whom, read from the sources; and what `import unitnorm_jax` costs.

A room is a folder. Each lists the rooms and libraries that it may use besides itself and the
standard library; a folder that is not listed fails, so a new one is a decision.
"""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARRAYS = {"jax", "numpy", "jaxtyping"}
CORE = {"unitnorm_jax.functional", "unitnorm_jax.functional._numerics"}
LINEN = {"flax", "unitnorm_jax._interception", "unitnorm_jax._nnx_objects"}
PROBE = {f"unitnorm_jax.ics.{room}" for room in ("distances", "bounds", "measures")}
METHOD = ARRAYS | CORE | LINEN | {"unitnorm_jax.linen"}
CONTRIB = "unitnorm_jax.contrib."

LIBRARY: dict[str, set[str]] = {
    "unitnorm_jax": {"unitnorm_jax.*"},  # its __init__ alone
    "unitnorm_jax._interception": {"flax"},
    "unitnorm_jax._nnx_objects": set(),
    "unitnorm_jax._unitize": {
        "flax",
        "unitnorm_jax.linen",
        "unitnorm_jax.nnx",
        "unitnorm_jax._nnx_objects",
    },
    "unitnorm_jax.functional._numerics": ARRAYS,
    "unitnorm_jax.functional": ARRAYS | CORE,
    "unitnorm_jax.linen": ARRAYS | CORE | LINEN,
    "unitnorm_jax.nnx": ARRAYS | CORE | {"flax"},
    "unitnorm_jax.optim": ARRAYS,  # not optax: its transformations are pairs of functions
    # scipy: assignment, linear programs; matplotlib: inside plot alone.
    "unitnorm_jax.ics.distances": ARRAYS | {"scipy"},
    "unitnorm_jax.ics.bounds": ARRAYS | LINEN | {"unitnorm_jax.ics.distances"},
    # scipy: a quadratic program.
    "unitnorm_jax.ics.measures": ARRAYS | {"scipy", "unitnorm_jax.ics.distances"},
    "unitnorm_jax.ics.probe": ARRAYS | LINEN | PROBE | {"matplotlib"},
    "unitnorm_jax.ics": {"unitnorm_jax.ics.*"},
    "unitnorm_jax.contrib": {"unitnorm_jax.contrib.*"},
    CONTRIB + "batch_channel_norm": METHOD
    | {CONTRIB + "estimated_batch_norm", CONTRIB + "noise_aware_batch_norm"}
    | {"unitnorm_jax.ics.probe"},
    CONTRIB + "batch_kalman_norm": METHOD,
    CONTRIB + "enorm": METHOD,
    CONTRIB + "estimated_batch_norm": METHOD,
    CONTRIB + "implied_penalty": METHOD,
    CONTRIB + "independent_component": METHOD,
    CONTRIB + "noise_aware_batch_norm": METHOD | {CONTRIB + "estimated_batch_norm"},
    CONTRIB + "norm_prop": METHOD,
    CONTRIB + "weight_standardization": METHOD,
}
# From the ground up: a room may use those before it.
ORDER = (
    "common",
    "config",
    "models",
    "methods",
    "analysis",
    "data",
    "configs",
    "training",
    "benchmarks",
    "train",
    "evaluate",
    "studies",
    "publish",
)
# Those that run a page of code of their own, or list all commands: they use any room, or none.
ENTRIES = {"__init__", "__main__", "minimal"}
# Libraries of training, and who needs them before the room of that name.
TRAINING = {"optax": {"methods"}, "orbax": set()}
UNWANTED = {"optax", "experiments", "matplotlib", "tests", "tyro", "sklearn", "tensorboardX"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path, root: Path = ROOT) -> str:
    """The dotted name of a source."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def library_room(module: str, rooms: dict[str, set[str]] = LIBRARY) -> str:
    """The innermost listed folder that a module of the library stands in."""
    parts = module.split(".")
    return next(
        room for n in range(len(parts), 0, -1) if (room := ".".join(parts[:n])) in rooms or n == 1
    )


def imports(path: Path) -> set[str]:
    """Full names of the modules a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                file = ROOT / full.replace(".", "/")
                is_module = file.is_dir() or file.with_suffix(".py").exists()
                hidden = node.module.startswith("unitnorm_jax") and alias.name.startswith("_")
                names.add(full if is_module or hidden else node.module)
    return names


def names_in_text(path: Path) -> set[str]:
    """Dotted names of the library anywhere in a source: by attribute, or in a string."""
    return set(re.findall(r"unitnorm_jax(?:\.\w+)+", path.read_text()))


def may_import(room: str, name: str, rooms: dict[str, set[str]] = LIBRARY) -> bool:
    """Whether the rules of the library let a room import a module."""
    if name.split(".")[0] in sys.stdlib_module_names:
        return True
    allowed = rooms[room]
    if name.split(".")[0] != "unitnorm_jax":
        return name.split(".")[0] in allowed
    target = library_room(name, rooms)
    within = any(a.endswith(".*") and name.startswith(a[:-1]) for a in allowed)
    return target == room or target in allowed or name in allowed or within


def rank(name: str) -> int:
    """Where a module of the experiments stands in their order."""
    return ORDER.index(name.split(".")[1])


def is_private(name: str) -> bool:
    return any(part.startswith("_") and part != "__main__" for part in name.split("."))


@pytest.mark.parametrize("path", sources("unitnorm_jax"), ids=name_of)
def test_library(path):
    name = name_of(path)
    room = library_room(name)
    folder = name if path.name == "__init__.py" else name.rsplit(".", 1)[0]
    assert folder in LIBRARY, f"say here what the new room {folder} may import"
    for imported in imports(path):
        assert may_import(room, imported), f"{room} must not import {imported}"


@pytest.mark.parametrize("room", LIBRARY)
def test_each_rule_of_the_library_can_fail(room):
    """Of every two rooms at most one may import the other, so each rule refuses something."""
    refused = [other for other in LIBRARY if not may_import(room, f"{other}._x")]
    assert refused or room == "unitnorm_jax"
    assert not may_import(room, "optax")
    assert not may_import(room, "experiments.train")
    for other in LIBRARY:
        if other != room and "unitnorm_jax" not in (other, room) and not other.startswith(room):
            both = may_import(room, f"{other}._x") and may_import(other, f"{room}._x")
            assert not both, f"{room} and {other} import each other"


@pytest.mark.parametrize("path", sources("unitnorm_jax"), ids=name_of)
def test_modules_of_the_library_are_private(path):
    """Their names are those of the folders' `__init__`."""
    parts = path.relative_to(ROOT / "unitnorm_jax").parts
    assert path.name == "__init__.py" or any(part.startswith("_") for part in parts)


def why_not(name: str, imported: str) -> str | None:
    """What forbids a module of the experiments an import; None if nothing does."""
    top, _, rest = imported.partition(".")
    if top == "tests":
        return "tests"
    if top == "unitnorm_jax" and is_private(imported):
        return "private"
    own = name.split(".")[1] if "." in name else ""
    if top in TRAINING and own in ORDER and rank(name) < rank("experiments.training"):
        return None if own in TRAINING[top] else "training alone"
    if top != "experiments" or own in ("__main__", ""):
        return None
    if own == "minimal":
        return "one page"
    if rest.partition(".")[0] in ENTRIES | {""}:
        return "no room"
    return "upward" if rank(imported) > rank(name) else None


@pytest.mark.parametrize("path", sources("experiments"), ids=name_of)
def test_experiments(path):
    name = name_of(path)
    for imported in imports(path) | names_in_text(path):
        assert why_not(name, imported) is None, f"{name} must not import {imported}"


def test_each_rule_of_the_experiments_can_fail():
    for lower, upper in itertools.combinations(ORDER, 2):
        assert why_not(f"experiments.{lower}.a", f"experiments.{upper}.b") == "upward"
        assert why_not(f"experiments.{upper}.a", f"experiments.{lower}.b") is None
    with pytest.raises(ValueError, match="not in"):
        rank("experiments.new_room")
    assert why_not("experiments.common.a", "unitnorm_jax.ics.distances._line") == "private"
    assert why_not("experiments.common.a", "unitnorm_jax.ics._hidden") == "private"
    assert why_not("experiments.common.a", "unitnorm_jax.contrib.enorm") is None
    assert why_not("experiments.common.a", "tests.oracle") == "tests"
    assert why_not("experiments.analysis.a", "optax") == "training alone"
    assert why_not("experiments.minimal", "experiments.common.files") == "one page"
    assert why_not("experiments.training.a", "experiments.minimal") == "no room"


def test_imports_are_found_wherever_they_stand(tmp_path):
    source = tmp_path / "a.py"
    source.write_text(
        "def f():\n    from unitnorm_jax import linen\n    import flax.linen as nn\n"
        "    from unitnorm_jax.ics import _hidden\n    ics.x = unitnorm_jax.ics.distances._line\n"
    )
    assert imports(source) == {"unitnorm_jax.linen", "flax.linen", "unitnorm_jax.ics._hidden"}
    assert names_in_text(source) >= {"unitnorm_jax.ics.distances._line"}


def test_import_is_light():
    """Nothing is loaded before it is used, nothing unwanted then, and no device is looked up."""
    code = (
        "import sys, unitnorm_jax\n"
        "assert not {'jax', 'flax'} & set(sys.modules)\n"
        "unitnorm_jax.UnitizedBatchNorm, unitnorm_jax.ICSProbe, unitnorm_jax.em_distance\n"
        "unitnorm_jax.contrib, unitnorm_jax.functional, unitnorm_jax.ics, unitnorm_jax.linen\n"
        "assert callable(unitnorm_jax.unitize)\n"
        f"assert not {UNWANTED} & {{name.split('.')[0] for name in sys.modules}}\n"
        "assert 'flax.nnx' not in sys.modules\n"
        "unitnorm_jax.nnx\n"
        "assert {*unitnorm_jax._NAMES, *unitnorm_jax._PACKAGES} == set(unitnorm_jax.__all__)\n"
        "from unitnorm_jax import *\n"
        "assert callable(em_distance)\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "unitnorm_jax" in loaded
    assert not loaded & UNWANTED - {"optax"}  # which flax.nnx loads
