"""What equi-normalization says of groups and options that do not fit."""

import jax.numpy as jnp
import pytest

from unitnorm_jax.contrib.enorm import (
    EnormGroup,
    enorm_chain,
    enorm_energy,
    enorm_factors,
    enorm_rescale,
)

PARAMS = {
    "a": {"kernel": jnp.ones((2, 3))},
    "norm": {"scale": jnp.ones(3)},
    "b": {"kernel": jnp.ones((3, 3))},
    "c": {"kernel": jnp.ones((12, 1))},
}
STATS = {"norm": {"mean": jnp.ones(3), "var": jnp.ones(3)}}
AB = EnormGroup(("a",), ("b",))


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ((AB,), {"bias": "no"}, r"`bias` \(='no'\) must be one of 'rescale', 'count', 'ignore'"),
        (
            (EnormGroup(("x/a",), ("b",)),),
            {},
            r"layer \(='x/a'\) has no `kernel` .* layers with a `kernel` are a, b, c",
        ),
        ((EnormGroup(("a",), ()),), {}, r"`outgoing` of group 0 must name at least one layer"),
        ((EnormGroup((), ("a",)),), {}, r"`incoming` of group 0 must name at least one layer"),
        (
            (AB, EnormGroup(("a",), ("a",))),
            {},
            r"layer \(='a'\) is in `incoming` of group 0 and of group 1, but must be in one",
        ),
        (
            (EnormGroup(("a",), ("c",)),),
            {},
            r"group 0 does not chain: 'a' writes 3 units, but 'c' reads 12\. A Dense after a flat",
        ),
        (
            (EnormGroup(("a",), (), flattened=("a",)),),
            {},
            r"'a' has a kernel of shape \(2, 3\), not \(positions \* 3, ...\)",
        ),
        ((EnormGroup(("a", "c"), ("b",)),), {}, r"'a' writes 3 units, but 'c' writes 1"),
        ((EnormGroup(("a",), ("norm",)),), {}, r"layer \(='norm'\) of group 0 reads units, so it"),
        (
            (AB._replace(norms=("norm",)),),
            {},
            r"norm \(='norm'\) of group 0 has no running `mean` in `batch_stats`",
        ),
        (
            (AB._replace(norms=("a",)),),
            {"batch_stats": {"a": STATS["norm"]}},
            r"norm \(='a'\) of group 0 has no `scale` in `params`",
        ),
        (
            (EnormGroup(("c",), ("a",), norms=("norm",)),),
            {"batch_stats": STATS},
            r"group 0 does not chain: 'c' writes 1 units, but 'a' reads 2",
        ),
        (
            (AB, EnormGroup(("b",), ("a",))),
            {"c": 1.1},
            r"group 1 does not chain: 'b' writes 3 units, but 'a' reads 2",
        ),
        (
            (EnormGroup(("a", "b"), ("b",)),),
            {"c": 1.1},
            r"`c` \(=1.1\) scales layers by their depth, .* Give `depths`",
        ),
        ((AB,), {"depths": {"a": 0}}, r"`depths` has no entry for layer \(='b'\)"),
    ],
)
def test_errors(groups, options, message):
    with pytest.raises(ValueError, match=message):
        enorm_factors(PARAMS, groups, **options)


def test_a_norm_of_another_width():
    params = {**PARAMS, "norm": {"scale": jnp.ones(4)}}
    with pytest.raises(ValueError, match=r"must have one value for each of the 3 units"):
        enorm_factors(params, (AB._replace(norms=("norm",)),), batch_stats=STATS)


def test_other_errors():
    with pytest.raises(ValueError, match=r"`norms` has 1 entries, but must have one .*: 2\."):
        enorm_chain(("a", "b", "c"), ("norm",))
    with pytest.raises(ValueError, match="`tree` must have the structure of `factors`"):
        enorm_rescale({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises(ValueError, match="`params` must be nested dictionaries of arrays"):
        enorm_factors({"a": [jnp.ones((2, 2))]}, ())
    with pytest.raises(ValueError, match=r"`p` \(=0\) must be positive"):
        enorm_energy(PARAMS, (AB,), p=0)
