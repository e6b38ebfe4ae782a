"""The report and the figures of the shift, from a run folder made by hand."""

import dataclasses
import html
import html.parser
import math
import re

import pytest

from experiments.analysis import page, shift
from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare import tables as comparison_tables
from experiments.analysis.compare.pairs import pairs_table
from experiments.analysis.figures import ics, panels
from experiments.analysis.page import content, svg, tables, words
from experiments.config.experiment import ModelConfig
from experiments.config.methods import NORMS
from experiments.config.networks import TITLES
from experiments.models import NETWORKS
from tests.experiments.handmade import LAYERS, ics_row, make_run

VOID = {"meta", "br", "path", "use", "rect", "link", "img"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def text(results):
    path = page.write_page(results)
    assert [p.name for p in results.folder.iterdir() if "report" in p.name] == ["report.html"]
    assert path == results.folder / "report.html"
    return path.read_text(encoding="utf-8")


class Outline(html.parser.HTMLParser):
    """What of a page the tests look at; fails where elements are not nested."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.references, self.text = [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attributes, seen=True)

    def handle_startendtag(self, tag, attributes, seen=False):
        if not seen:
            self.tags.append(tag)
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        for name, value in values.items():
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_opens_without_anything_else(text):
    found = Outline(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert found.references
    assert all(reference.startswith("#") for reference in found.references)
    assert {reference[1:] for reference in found.references} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)
    assert not re.findall(r"https?://|@import|url\((?!#)", text)
    assert len(text) < 1_000_000


def test_what_was_found_comes_first(text):
    """Before the contents; then accuracy, drift by layer, and the details."""
    places = [
        text.index(part)
        for part in (
            "<h1>",
            "UnitizedBatchNorm reached 100.0 % and BatchNorm 100.0 % (difference +0.0 points",
            "<nav",
            'id="figure-curves"',
            'id="figure-ratios"',
            'id="results"',
            'id="figure-relative"',
            'id="certificates"',
            'id="configuration"',
        )
    ]
    assert places == sorted(places)


@pytest.mark.slow
def test_many_methods_and_layers_make_a_small_page(tmp_path):
    """Measurements add to it only by 12 layers, in figures that draw at most 120 of each."""
    layers = tuple(f"block_{i // 2}/norm_{i % 2}" for i in range(60))
    results = make_run(tmp_path / "run", norms=NORMS[:12], layers=layers, seeds=(0,))
    assert page.write_page(results).stat().st_size < 1.5e6


def test_everything_is_on_it(text):
    found = Outline(text)
    for name in ("ratios", "relative", "absolute", "bounds", "curves", "alphas"):
        assert f"figure-{name}" in found.ids
    assert found.tags.count("svg") == 6
    assert found.tags.count("table") == 2 + 2 + 2
    words = " ".join(found.text.split())
    for expected in (
        "digits & <more>",
        "abc123",
        "1.2.3",
        "Absolute shift: UnitizedBatchNorm moved less than BatchNorm in 3 of 3 layers, more in 0; ",
        "Certificates of UnitizedBatchNorm: 24 distances, 0 open, largest gap 0.0e+00 of the ",
        # 4 measurements of each of 2 seeds in 0.5 s; 8 s for the updates.
        "A measurement on 16 images takes, by itself and in % of the 5 updates between two: "
        "BatchNorm 62.5 ms (6.2 %), UnitizedBatchNorm 62.5 ms (6.2 %). The time per step includes ",
        "block_0/norm_0 16 8 25 12.5 0.500 0.50 to 0.50 0.50 to 0.50 100 %, 0 % 0, 0 0.0e+00 "
        "UnitizedBatchNorm",
        "None stayed open.",
        "learning_rate 0.1",
        "norms bn ubn",
        "stem_norm 16 8 12.5 0.5 mean 2.5 moments 100 %",
    ):
        assert expected.replace(" ", "") in words.replace(" ", ""), expected


def test_colours_are_those_of_the_page(text):
    """In the figures there is no colour that the page cannot change for a dark screen."""
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 6
    for figure in figures:
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", figure)
        assert "var(--ink)" in figure
    style = re.search(r"<style>.*?</style>", text, re.DOTALL)[0]
    for variable in (v[4:-1] for v in svg.VARIABLES.values() if v.startswith("var(")):
        assert style.count(f"{variable}:") == 2, variable  # light and dark


@pytest.mark.parametrize(
    ("model", "title"),
    [
        (ModelConfig(), "Pre-activation ResNet on digits & <more>"),
        (ModelConfig(skip=False), "Pre-activation ResNet without skip connections on digits"),
        (ModelConfig("resnet50"), "ResNet-50 on digits & <more>"),
    ],
)
def test_title_is_of_the_network(results, text, model, title):
    assert set(TITLES) <= set(NETWORKS)
    config = dataclasses.replace(results.config, model=model)
    assert results._replace(config=config).title.startswith(title)
    assert f"<h1>{html.escape(results.title)}</h1>" in text


def test_open_certificates_are_listed(tmp_path):
    def rows(step, layer, value):
        if layer == "head_norm" and step == 20:
            more = {"certified_lower": value * 0.75, "exact": False, "pairing_optimal": False}
            return ics_row(step, layer, value, **more)
        return ics_row(step, layer, value)

    results = make_run(tmp_path / "run", rows=rows)
    words = "".join(Outline(page.write_page(results).read_text()).text.split())
    assert "4stayedopen" in words
    assert "head_normUnitizedBatchNorm12022.530302.50e-01" in words
    assert [row["norm"] for row in tables.open_rows(results)] == ["bn", "bn", "ubn", "ubn"]
    table = shift.certificate_table(results)
    assert list(table.cells()) == [
        ["head_norm", "BatchNorm", "2", "8", "0.25"],
        ["head_norm", "UnitizedBatchNorm", "2", "8", "0.25"],
    ]
    figure = ics.distances_figure(results, "relative")
    assert panels.UNPROVEN in legend(figure)


def test_what_is_not_finite_is_said(tmp_path):
    def rows(step, layer, value):
        if not (layer == "stem_norm" and step == 5):
            return ics_row(step, layer, value)
        row = ics_row(step, layer, 1.0, reason="NaN or inf", exact=False)
        numbers = [k for k, v in row.items() if isinstance(v, float)]
        return {**row, **dict.fromkeys(numbers, "nan")}

    results = make_run(tmp_path / "run", rows=rows)
    assert math.isnan(results.runs[0].ics[0]["value"])
    assert "22 distances, 0 open" in shift.verdicts(results)[-1]
    assert "2 not finite" in shift.verdicts(results)[-1]
    assert panels.NOT_FINITE in legend(ics.distances_figure(results, "absolute"))
    page.write_page(results)
    ics.plot_ics(results, tmp_path / "ics.png")


def test_nothing_was_probed(tmp_path):
    results = make_run(tmp_path / "run", norms=("none",))
    words = " ".join(Outline(page.write_page(results).read_text()).text.split())
    assert "Nothing was probed: no network of this run has a normalization layer" in words
    assert "No method of this run has an alpha." in words
    assert shift.verdicts(results) == shift.shift_tables(results) == []
    assert shift.cost(results) is None
    assert shift.certificate_table(results).rows == []


def test_one_norm_of_one_seed_is_not_compared(tmp_path):
    results = make_run(tmp_path / "run", norms=("none", "ubn"), seeds=(3,))
    found = Outline(page.write_page(results).read_text())
    assert "figure-ratios" not in found.ids
    assert "figure-relative" in found.ids
    assert shift.shift_tables(results) == []
    ics.plot_ics(results, tmp_path / "ics.png")
    assert (tmp_path / "ics.png").read_bytes().startswith(b"\x89PNG")


def test_console_table(results):
    absolute, relative = shift.shift_tables(results)
    assert "Absolute: EM distance" in absolute.title
    cells = list(zip(*relative.cells(), strict=True))
    assert cells[0] == LAYERS
    assert cells[1] == ("6.25", "12.5", "18.8")
    assert cells[3:5] == [("0.50",) * 3, ("0.50 to 0.50",) * 3]
    assert cells[5:] == [("100 %, 0 %",) * 3, ("UnitizedBatchNorm",) * 3]


def test_figure_shows_the_rows(results):
    figure = ics.distances_figure(results, "relative")
    assert [a.get_title(loc="left") for a in figure.axes] == [f"{x}  (d = 16)" for x in LAYERS]
    thick = [line for line in figure.axes[1].get_lines() if line.get_linewidth() > 1]
    assert [line.get_ydata().tolist() for line in thick] == [[5, 10, 15, 20], [2.5, 5, 7.5, 10]]
    assert legend(figure) == ["BatchNorm", "UnitizedBatchNorm", panels.BOUNDS]
    for axis in ics.ratios_figure(results).axes:
        marks = next(line for line in axis.get_lines() if line.get_marker() == "s")
        assert marks.get_ydata().tolist() == [0.5] * 3


def test_deep_networks_and_long_runs_are_thinned(tmp_path):
    layers = tuple(f"block_{i}/norm_0" for i in range(40))
    results = make_run(tmp_path / "run", norms=("bn",), seeds=(0,), layers=layers)
    shown = panels.shown_layers(results)
    assert len(shown) <= panels.MAX_LAYERS
    assert shown[0] == layers[0]
    assert shown == list(layers[::4])
    assert "10 of 40 layers are drawn." in [f.caption for f in content.figures(results)][1]


def test_every_column_of_shift_and_certificates_is_explained(results, text):
    """On hover and, for those who cannot hover, in a legend."""
    compared = list(shift.comparisons(results))
    record = make_record(combine([results.folder]), "")
    shown = [
        *tables.comparison_tables(results, compared),
        *tables.bounds_tables(results),
        tables.open_table(results),
        *(comparison_tables(record)[key] for key in ("shift", "layers", "distances")),
        pairs_table(record),
    ]
    plain = {"layer", "method", "against", "quantity", "seed"}
    for table in shown:
        unexplained = {c.name for c in table.columns if not words.meaning(c.name)}
        assert unexplained <= plain, table.title
        told = dict(words.legend([table]))
        assert {words.meaning(c.name) for c in table.columns} - {""} == set(told.values())
    assert f'<abbr title="{html.escape(words.MEANINGS["largest gap"])}">largest gap</abbr>' in text
    assert f"<dd>{html.escape(words.MEANINGS['largest gap'])}</dd>" in text
    assert words.meaning("distance, BatchNorm") == words.MEANINGS["distance, "]
    assert ("distance …", words.MEANINGS["distance, "]) in words.legend(shown)


def test_command_line(results, capsys):
    from experiments.analysis.page.__main__ import main

    assert main([str(results.folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    assert main([str(results.folder / "bn-seed0")]) == 1
    assert "config.json does not exist" in capsys.readouterr().err


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]
