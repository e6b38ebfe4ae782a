"""Every example in a docstring runs and prints what it says."""

import ast
import doctest
import importlib
import pkgutil

import pytest

import unitnorm_jax


def examples():
    """Every docstring with examples; from the source, for decorated functions hide from doctest."""
    parser = doctest.DocTestParser()
    for info in pkgutil.walk_packages(unitnorm_jax.__path__, "unitnorm_jax."):
        module = importlib.import_module(info.name)
        with open(module.__file__) as source:
            tree = ast.parse(source.read())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for node in (n for n in ast.walk(tree) if isinstance(n, documented)):
            text = ast.get_docstring(node) or ""
            name = f"{info.name}.{getattr(node, 'name', '')}".rstrip(".")
            line = getattr(node, "lineno", 1)
            test = parser.get_doctest(text, vars(module).copy(), name, module.__file__, line)
            if test.examples:
                yield test


EXAMPLES = list(examples())


def marks(example):
    """Other papers' methods are among the slow tests."""
    return [pytest.mark.slow] if example.name.startswith("unitnorm_jax.contrib.") else []


@pytest.mark.parametrize("example", [pytest.param(e, id=e.name, marks=marks(e)) for e in EXAMPLES])
def test_docstring(example):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, attempted = runner.run(example, out=report.append)
    assert attempted > 0
    assert failed == 0, "".join(report)


def test_public_functions_have_examples():
    names = {e.name.rsplit(".", 1)[-1] for e in EXAMPLES}
    assert names >= {"unitized_batch_norm", "UnitizedBatchNorm", "add_alpha"}
