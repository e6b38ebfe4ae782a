import ast
from pathlib import Path

import unitnorm_jax.ics

PACKAGE = Path(unitnorm_jax.ics.__file__).parent
ALLOWED = {"jax", "numpy", "scipy", "jaxtyping", "unitnorm_jax"}
STANDARD = {"collections", "functools", "math", "typing"}


def test_ics_knows_no_layer():
    files = list(PACKAGE.glob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in ALLOWED | STANDARD, (file.name, name)
                if name.startswith("unitnorm_jax"):
                    assert name.startswith("unitnorm_jax.ics"), (file.name, name)
