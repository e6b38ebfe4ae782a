"""Which moved less: against a restatement by plain loops, and examples worked out by hand."""

import doctest
import itertools
import math
import random
import statistics

import pytest

from experiments.analysis import comparison, findings, names
from experiments.analysis.compare.tables import shift_table
from experiments.analysis.comparison import all_certificates, certificates, compare, tightness
from experiments.analysis.figures import looks, style


def row(step, value, *, layer="a", width=0.0, spread=2.0, **more):
    """A row of a probe: the certificate is ``value`` times ``1 -+ width``."""
    lower, upper = value * (1 - width), value * (1 + width)
    return {
        **{"step": step, "layer": layer, "call": 0, "output": "", "d": 4, "reason": ""},
        **{"value": value, "certified_lower": lower, "certified_upper": upper},
        **{"relative": value / spread, "relative_lower": lower / spread},
        **{"relative_upper": upper / spread, "exact": width == 0, "spread": spread},
        **{"pairing_optimal": True, "lower_mean": 0.5 * value, "lower_norm": 0.25 * value},
        **{"upper_moments": 4.0, "upper_radius": 3.0, "upper_pairing": value},
        **more,
    }


def test_by_hand():
    base = {0: [row(10, 1.0), row(20, 2.0)], 1: [row(10, 4.0, width=0.5)]}
    norm = {0: [row(10, 0.5), row(20, 3.0)], 1: [row(10, 3.0), row(20, 9.0)]}
    (layer,) = compare(norm, base, "absolute")
    assert (layer.layer, layer.d, layer.pairs) == ("a", 4, 3)
    assert (layer.median_base, layer.median) == (2.0, 3.0)
    assert layer.ratio == 0.75  # of 0.5, 1.5, 0.75
    assert layer.quartiles == (0.625, 1.125)
    assert layer.seed_ratios == (1.0, 0.75)
    # 0.5 < 1 and 3 > 2 are certain; 3 lies within 4 -+ 2.
    assert (layer.certified_less, layer.certified_more) == (1 / 3, 1 / 3)
    assert layer.less("norm", "base") is None


def test_relative_is_in_units_of_each_spread():
    base, norm = {0: [row(10, 2.0, spread=4.0)]}, {0: [row(10, 1.0, spread=1.0)]}
    (absolute,), (relative,) = (compare(norm, base, q) for q in ("absolute", "relative"))
    assert (absolute.ratio, relative.ratio) == (0.5, 2.0)
    assert (absolute.less("ubn", "bn"), relative.less("ubn", "bn")) == ("ubn", "bn")


def test_against_plain_loops():
    draw = random.Random(0)
    runs = [
        {
            seed: [
                row(step, draw.lognormvariate(0, 1), layer=layer, width=draw.choice([0, 0.3]))
                for step in range(5, 60, 5)
                for layer in ("stem", "block_0/norm_1")
                if draw.random() > 0.1
            ]
            for seed in (3, 7)
        }
        for _ in range(2)
    ]
    norm, base = runs
    for quantity, prefix in (("absolute", "certified"), ("relative", "relative")):
        name = {"absolute": "value", "relative": "relative"}[quantity]
        found = {layer.layer: layer for layer in compare(norm, base, quantity)}
        assert set(found) == {"stem", "block_0/norm_1"}
        for layer, result in found.items():
            pairs = [
                (seed, a, b)
                for seed in (3, 7)
                for a in norm[seed]
                for b in base[seed]
                if a["layer"] == b["layer"] == layer and a["step"] == b["step"]
            ]
            ratios = [a[name] / b[name] for _, a, b in pairs]
            less = [a[f"{prefix}_upper"] < b[f"{prefix}_lower"] for _, a, b in pairs]
            more = [a[f"{prefix}_lower"] > b[f"{prefix}_upper"] for _, a, b in pairs]
            assert result.pairs == len(pairs) > 10
            assert result.ratio == pytest.approx(statistics.median(ratios))
            assert result.median == pytest.approx(statistics.median(a[name] for _, a, _ in pairs))
            assert result.certified_less == pytest.approx(statistics.mean(map(float, less)))
            assert result.certified_more == pytest.approx(statistics.mean(map(float, more)))
            assert 0 < result.certified_less + result.certified_more < 1
            for seed, ratio in zip((3, 7), result.seed_ratios, strict=True):
                own = [a[name] / b[name] for s, a, b in pairs if s == seed]
                assert ratio == pytest.approx(statistics.median(own))


def test_what_is_not_finite_or_did_not_move_is_left_out():
    base = {0: [row(1, 0.0), row(2, 1.0), row(3, math.nan, reason="NaN"), row(4, 2.0)]}
    norm = {0: [row(1, 0.0), row(2, 2.0), row(3, 9.0), row(4, 2.0)]}
    (layer,) = compare(norm, base, "absolute")
    assert (layer.pairs, layer.ratio) == (3, 1.5)  # 0 / 0 is a pair without a ratio
    (layer,) = compare(norm, {0: [row(1, 0.0), row(2, 0.0)]}, "absolute")
    assert layer.ratio == math.inf
    (layer,) = compare({0: [row(1, 0.0)]}, {0: [row(1, 0.0)]}, "absolute")
    assert math.isnan(layer.ratio)
    assert layer.less("norm", "base") is None


def test_one_update_in_which_the_base_did_not_move_decides_nothing():
    base = {0: [row(1, 1.0), row(2, 1.0), row(3, 1.0), row(4, 0.0)]}
    norm = {0: [row(1, 0.5), row(2, 0.9), row(3, 1.05), row(4, 1.0)]}
    (layer,) = compare(norm, base, "absolute")
    assert layer.ratio == pytest.approx(0.975)
    assert layer.less("norm", "base") == "norm"


def test_numbers_that_are_not_finite_are_left_out_in_any_order():
    """What is shown is that of the layers that have a ratio, wherever the others stand."""
    record_layers = [{"ratio": r, "seed_ratios": [r]} for r in (None, 0.5, 2.0, "inf")]
    shown = set()
    for layers in itertools.permutations(record_layers):
        shift = [{"quantity": q, **layer} for q in ("absolute", "relative") for layer in layers]
        arm = {"name": "b", "shift": shift, "certificates": []}
        table = shift_table({"arms": [{"name": "a"}, arm]})
        shown.add(tuple(next(iter(table.cells()))))
    ((_, less, more, ratio, *_),) = shown
    assert (less, more, ratio) == ("1", "2", "0.50 to inf")


def test_a_certificate_without_an_upper_end_is_all_open():
    rows = {0: [row(1, 1.0, certified_upper=math.inf, exact=False), row(2, 1.0)]}
    assert all_certificates(rows).largest_gap == 1.0


def test_layers_are_matched_by_path_and_call():
    base = {0: [row(1, 1.0, layer="b"), row(1, 1.0), row(1, 5.0, call=1), row(1, 1.0, layer="c")]}
    norm = {0: [row(1, 2.0), row(1, 5.0, call=1), row(1, 3.0, layer="b")]}
    found = [(layer.layer, layer.ratio) for layer in compare(norm, base, "absolute")]
    assert found == [("b", 3.0), ("a", 2.0), ("a#1", 1.0)]


def test_unknown_quantity():
    with pytest.raises(ValueError, match=r"`quantity` \(='both'\) is unknown; choose from abs"):
        compare({}, {}, "both")


def test_certificates():
    rows = {
        0: [row(1, 1.0), row(2, 1.0, width=0.2), row(2, 1.0, layer="b", width=0.01)],
        1: [row(1, math.nan, exact=False, reason="NaN"), row(2, 0.0)],
    }
    a, b = certificates(rows)
    assert (a.layer, a.measured, a.open, a.not_finite) == ("a", 3, 1, 1)
    assert a.largest_gap == pytest.approx(0.4 / 1.2)
    assert (b.layer, b.measured, b.open, b.not_finite) == ("b", 1, 1, 0)
    assert all_certificates(rows)[1:3] == (4, 2)
    assert math.isnan(all_certificates({}).largest_gap)


def test_tightness():
    rows = {0: [row(1, 1.0), row(2, 2.0, lower_norm=1.5), row(3, 0.0), row(4, 1.5)]}
    (layer,) = tightness(rows)
    assert (layer.layer, layer.measured, layer.distance) == ("a", 3, 1.5)
    assert (layer.lower, layer.lower_name) == (0.5, "mean")  # of 0.5, 0.75, 0.5
    assert (layer.upper, layer.upper_name) == (2.0, "radius")  # of 3, 1.5, 2
    assert layer.pairing_optimal == 1.0


@pytest.mark.parametrize("module", [comparison, findings, looks, names, style])
def test_docstring_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
