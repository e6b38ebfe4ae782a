"""Who may import whom, read from the sources; and what `import unitnorm_jax` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "unitnorm_jax"
SOURCES = sorted(LIBRARY.rglob("*.py"))
# What each subpackage may use besides itself and the standard library.
ARRAYS = {"jax", "numpy", "jaxtyping"}
ALLOWED = {
    "functional": ARRAYS,
    "linen": ARRAYS | {"flax", "unitnorm_jax.functional", "unitnorm_jax._interception"},
    "nnx": ARRAYS | {"flax", "unitnorm_jax.functional"},
    # scipy: assignment, linear programs; flax: capture; matplotlib: inside plot alone.
    "ics": ARRAYS
    | {"scipy", "flax", "matplotlib", "unitnorm_jax.functional", "unitnorm_jax._interception"},
    "": ARRAYS | {"flax", "unitnorm_jax"},
}
UNWANTED = {"optax", "experiments", "matplotlib", "tests", "tyro", "sklearn", "tensorboardX"}


def package(path: Path) -> str:
    """The subpackage that a source belongs to; "" is the top."""
    parts = path.relative_to(LIBRARY).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    """Full names of the modules a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            # `from unitnorm_jax import functional` imports `unitnorm_jax.functional`.
            for alias in node.names:
                is_package = node.module == "unitnorm_jax"
                names.add(f"{node.module}.{alias.name}" if is_package else node.module)
    return names


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(f"{a}.") for a in allowed)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports(path):
    own = package(path)
    assert own in ALLOWED, f"say here what the new subpackage {own} may import"
    allowed = ALLOWED[own] | ({f"unitnorm_jax.{own}"} if own else set())
    for name in imports(path):
        if name.split(".")[0] not in sys.stdlib_module_names:
            assert is_within(name, allowed), f"{own or 'the top'} must not import {name}"


def test_the_rules_can_fail(tmp_path):
    source = tmp_path / "a.py"
    source.write_text("def f():\n    from unitnorm_jax import linen\n    import flax.linen as nn\n")
    assert imports(source) == {"unitnorm_jax.linen", "flax.linen"}
    assert not is_within("flax.linen", ALLOWED["functional"])
    assert not is_within("unitnorm_jax.linen", ALLOWED["ics"])
    assert not is_within("jaxopt", ARRAYS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_nobody_outside_imports_private_names(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "unitnorm_jax" and any(p.startswith("_") for p in parts):
            # A private module at the top is private to the library, and shared by its rooms.
            owner = next(i for i, part in enumerate(parts) if part.startswith("_"))
            inside = owner == 1 or parts[1] == package(path)
            assert inside, f"{path.name} imports the private {name}"


def test_import_is_light():
    """Nothing unwanted is loaded, and no device is looked up."""
    code = (
        "import sys, unitnorm_jax\n"
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
    assert not loaded & UNWANTED
