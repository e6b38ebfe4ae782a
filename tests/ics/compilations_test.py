"""What is called again is not compiled again, nor traced."""

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.compilations import count_compilations
from unitnorm_jax import ics
from unitnorm_jax.contrib.batch_channel_norm import elimination_singularities

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
MODEL = nn.Sequential([nn.Dense(4), nn.LayerNorm()])


@pytest.fixture(scope="module")
def states():
    before = MODEL.init(jax.random.key(1), X)
    return before, jax.tree.map(lambda p: 1.1 * p, before)


def test_the_probe(states):
    probe = ics.ICSProbe(MODEL, X, method="pairing")
    record = ics.ICSRecord(probe, every=1)

    def measure():
        probe(*states).rows()
        probe(probe.keep(states[0]), states[1]).rows()
        for step in range(2):
            record(step, states[step])
        record.rows()

    with count_compilations() as first:
        measure()
    assert len(first) > 0
    with count_compilations() as again:
        measure()
    assert again == []


def test_the_probe_in_a_jitted_function(states):
    probe = ics.ICSProbe(MODEL, X, method="pairing")

    @jax.jit
    @chex.assert_max_traces(n=1)
    def measure(probe, before, after):
        return probe(before, after)

    one, other = (measure(probe, *states) for _ in range(2))
    chex.assert_trees_all_close(one, other, rtol=0)
    with count_compilations() as again:
        measure(probe, *states)
    assert again == []


def test_the_forward_pass_is_traced_once_for_both_sides_and_once_with_a_sample_more(states):
    calls = []

    def wanted(module, method):
        calls.append(module.path)
        return isinstance(module, nn.LayerNorm)

    probe = ics.ICSProbe(MODEL, X, wanted, method="pairing")
    jax.eval_shape(probe._both_sides, *states, probe._args, None)
    assert calls.count(("layers_1",)) == 2


def test_singularities(states):
    def count():
        return elimination_singularities(MODEL, states[0], [X, X], layers=nn.LayerNorm)

    with count_compilations() as first:
        (one,) = count()
    assert len(first) > 0
    with count_compilations() as again:
        (other,) = count()
    assert again == []
    np.testing.assert_array_equal(one.mean_to_std, other.mean_to_std)
    # Options that cannot be hashed are no reason to fail.
    (third,) = elimination_singularities(MODEL, states[0], [X], layers=[nn.LayerNorm])
    assert third.layer == one.layer


def test_the_penalty(states):
    params = {"norm": {"alpha": np.linspace(0, 1, 4, dtype=np.float32)}}
    ics.unitized_bound_penalty(params, 3)
    with count_compilations() as again:
        ics.unitized_bound_penalty(params, 3)
    assert again == []
