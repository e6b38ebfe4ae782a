import flax.linen as nn
import jax
import numpy as np
import pytest

from unitnorm_jax import ics

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.LayerNorm(name="norm")
        return norm(nn.Dense(3)(norm(x)))


@pytest.fixture(scope="module")
def report():
    before = Shared().init(jax.random.key(1), X)
    after = jax.tree.map(lambda p: p + 0.1, before)
    return ics.ICSProbe(Shared(), X, nn.LayerNorm, method="pairing")(before, after)


def test_rows(report):
    first, second = report.rows(step=3)
    assert list(first)[:9] == [
        *("step", "layer", "call", "output", "kind", "mode", "statistics", "n", "d"),
    ]
    assert (first["step"], first["layer"], first["call"], second["call"]) == (3, "norm", 0, 1)
    assert first["certified_lower"] <= first["value"] <= first["certified_upper"]
    assert first["lower_mean"] <= first["value"] <= first["upper_moments"]
    assert first["relative"] == pytest.approx(first["value"] / first["spread"])


def test_scalars(report):
    scalars = report.scalars("shift")
    assert set(scalars) == {
        f"shift/{layer}/{name}"
        for layer in ("norm", "norm#1")
        for name in ("value", "relative", "certified_lower", "certified_upper")
    }
    assert scalars["shift/norm/value"] == float(report.layers[0].distance.value)
    rows = report.rows()
    rows[0]["value"] = float("nan")
    assert "ics/norm/value" not in ics.scalars(rows)


def test_text(report):
    header, *lines = str(report).splitlines()
    assert header.split() == [
        *("layer", "stats", "n", "d", "distance", "gap", "relative", "lower", "upper", "pairing"),
    ]
    assert [line.split()[0] for line in lines] == ["norm", "norm#1"]
    assert all(line.endswith("optimal") for line in lines)
    broken = report.rows()
    broken[0].update(reason="NaN", pairing_optimal=False)
    broken[1].update(pairing_optimal=False)
    text = ics.table(broken).splitlines()
    assert text[1].endswith("NaN")
    assert text[2].endswith("not proven")


def test_a_report_is_a_tree(report):
    arrays = [leaf for leaf in jax.tree.leaves(report) if isinstance(leaf, jax.Array)]
    assert arrays
    assert all(array.shape[-1] == 2 for array in arrays)
    assert all(array.shape == (2,) for array in jax.tree.leaves(report.measures))
