import ast
import inspect
import sys

import matplotlib as mpl
import pytest

from unitnorm_jax import ics

FIXED = {"output": "", "kind": "BatchNorm", "mode": "train", "statistics": "batch", "n": 8, "d": 4}


def row(step, layer="norm", call=0, value=0.5, **more):
    return {
        **FIXED,
        **{"step": step, "lag": 1, "layer": layer, "call": call, "value": value, "spread": 2.0},
        **{"certified_lower": 0.9 * value, "certified_upper": 1.1 * value},
        **{"relative": value / 2, "relative_lower": 0.45 * value, "relative_upper": 0.55 * value},
        **{"lower_mean": value / 4, "upper_moments": 3.0, "upper_pairing": value},
        **{"pairing_optimal": True, "reason": "", "exact": True},
        **more,
    }


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


@pytest.mark.parametrize("relative", [True, False])
def test_one_panel_per_layer_and_call(relative):
    rows = [row(t, name, call) for t in (2, 4) for name, call in (("a", 0), ("b", 0), ("b", 1))]
    figure = ics.plot(rows, relative=relative, columns=2)
    assert [a.get_title(loc="left") for a in figure.axes] == [
        f"{name}  (d = 4)" for name in ("a", "b", "b#1")
    ]
    line = lines(figure.axes[0])["distance"]
    assert line.get_xdata().tolist() == [2, 4]
    assert line.get_ydata().tolist() == [0.25, 0.25] if relative else [0.5, 0.5]
    certificate, band = (c.get_paths()[0].vertices[:, 1] for c in figure.axes[0].collections)
    unit = 2.0 if relative else 1.0
    assert (min(band), max(band)) == (0.125 / unit, 3.0 / unit)
    assert (min(certificate), max(certificate)) == pytest.approx((0.45 / unit, 0.55 / unit))
    assert "over 1 update," not in figure.get_supxlabel()
    assert "train mode, n = 8, shift over 1 update)" in figure.get_supxlabel()


def test_open_marks_and_crosses(tmp_path):
    nan = float("nan")
    rows = [
        row(1),
        row(2, pairing_optimal=False),
        row(3, **dict.fromkeys(("value", "relative", "spread"), nan), reason="NaN"),
        row(4, value=0.0),
    ]
    before = dict(mpl.rcParams)
    figure = ics.plot(rows)
    found = lines(figure.axes[0])
    assert found["pairing not proven optimal"].get_xdata().tolist() == [2]
    assert found["not measured"].get_xdata().tolist() == [3]
    figure.savefig(tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before


def test_points_without_neighbours_are_marked():
    nan = float("nan")
    bad = dict.fromkeys(("value", "relative", "relative_lower", "relative_upper", "spread"), nan)
    bad |= {"reason": "NaN", "lower_mean": nan, "upper_moments": nan}
    rows = [row(1, **bad), row(2), row(3, **bad), row(4), row(5), row(6, **bad), row(7)]
    (axis,) = ics.plot(rows).axes
    marks = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in marks] == [[2, 7]]
    assert [list(line.get_ydata()) for line in marks] == [[0.25, 0.25]]
    # The bands too: fill_between draws nothing at one point.
    lines = {
        tuple(map(tuple, s)) for c in axis.collections for s in getattr(c, "get_segments", list)()
    }
    for x in (2, 7):
        assert ((x, 0.225), (x, 0.275)) in {tuple((a, round(b, 9)) for a, b in s) for s in lines}
        assert ((x, 0.0625), (x, 1.5)) in lines
    assert not any(
        line.get_marker() == "o" for line in ics.plot([row(1), row(2)]).axes[0].get_lines()
    )


def test_nothing_to_draw_is_drawn(tmp_path):
    ics.plot([row(1, value=0.0, upper_moments=0.0)]).savefig(tmp_path / "zero.png")


def test_errors():
    with pytest.raises(ValueError, match=r"`record` has no rows"):
        ics.plot([])
    with pytest.raises(ValueError, match=r"`columns` \(=0\) must be at least 1"):
        ics.plot([row(1)], columns=0)


def test_matplotlib_is_an_extra(monkeypatch):
    source = ast.parse(inspect.getsource(sys.modules[ics.plot.__module__]))
    modules = {node.module for node in source.body if isinstance(node, ast.ImportFrom)}
    assert not any("matplotlib" in module for module in modules)  # at import
    assert not any(
        isinstance(node, ast.Import) and "matplotlib" in ast.dump(node) for node in source.body
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"install it, or unitnorm-jax\[plot\]"):
        ics.plot([row(1)])
