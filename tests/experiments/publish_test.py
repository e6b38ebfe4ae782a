"""The README's numbers are those of the records in experiments/results/."""

import json
import re

import pytest
from PIL import Image

from experiments import publish
from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.record import to_json
from tests.experiments.handmade import make_run


@pytest.fixture
def record(tmp_path):
    correct = {"bn": [350, 352, 357], "ubn": [353, 354, 358]}
    run = make_run(tmp_path / "a", seeds=(0, 1, 2), correct=lambda norm, seed: correct[norm][seed])
    return make_record(combine([run.folder]), "")


@pytest.mark.parametrize("name", publish.TEXTS)
def test_readme_is_what_the_records_say(name):
    text = (publish.ROOT / name).read_text()
    assert publish.update(text) == text, "run python -m experiments publish"
    assert publish.figures(text) == [], "run python -m experiments publish"


def stored(name):
    return json.loads((publish.ROOT / "experiments" / "results" / f"{name}.json").read_text())


def claimed(pattern):
    """The numbers of a sentence of README.md."""
    text = " ".join((publish.ROOT / "README.md").read_text().split())
    (found,) = re.findall(pattern, text)
    return [float(number.replace(",", "")) for number in found]


def test_claims_on_memory_traffic():
    rows = stored("bench_layer")["rows"]
    (traffic,) = [
        row["traffic"]
        for row in rows["time"]
        if row["shape"] == [128, 32, 32, 16]
        and (row["dtype"], row["passes"]) == ("float32", "forward+backward")
    ]
    assert traffic["UnitizedBatchNorm"][1] == 2
    found = claimed(
        r"layer reads full arrays (\d+) times and writes them twice where `nn.BatchNorm` takes "
        r"(\d+) and (\d+) \(naive: (\d+) and (\d+)\)"
    )
    reads = traffic["UnitizedBatchNorm"][0]
    assert found == [reads, *traffic["BatchNorm"], *traffic["naive"]]
    found = claimed(
        r"it keeps ([\d.]+) arrays for the backward pass instead of ([\d.]+) \(bfloat16: ([\d.]+) "
        r"instead of ([\d.]+)\)"
    )
    kept = [rows["kept"][dtype] for dtype in ("float32", "bfloat16")]
    assert found == [of[name] for of in kept for name in ("UnitizedBatchNorm", "BatchNorm")]


def test_claims_on_bounds():
    ends = []
    for bound in ("upper_moments", "upper_own"):
        ratios = [
            ratio
            for arm in stored("digits")["arms"]
            for ratio in arm["looseness"]["bounds"].get(bound, {"by_epoch": []})["by_epoch"]
            if ratio is not None
        ]
        ends += [int(min(ratios)), float(f"{max(ratios):.1g}")]
    assert ends == claimed(
        r"that by the moments is (\d+) to ([\d,]+) times the distance and the paper's own, in "
        r"alpha, (\d+) to ([\d,]+) times"
    )


def test_readme_tables(record, tmp_path, capsys):
    (tmp_path / "r.json").write_text(to_json(record))
    begin = "<!-- table: r.json results | method | test accuracy, % -->\n"
    text = f"# A\n\n{begin}old\n<!-- end of table -->\n\ntext\n"
    made = publish.update(text, tmp_path)
    assert "| bn | 98.06 ± 1.00 |\n" in made
    assert made.startswith(f"# A\n\n{begin}| method | test accuracy, % |\n|---|---|\n| bn |")
    assert made.endswith("|\n<!-- end of table -->\n\ntext\n")
    assert publish.update(made, tmp_path) == made
    changed = made.replace("98.06", "98.07")
    assert publish.update(changed, tmp_path) == made  # so a number edited by hand does not last
    for bad, message in {
        text.replace("r.json", "s.json"): "s.json does not exist; make it",
        text.replace(" results ", " result "): r"table \(='result'\) is unknown in r.json; choose",
        text.replace("| method", "| metod"): r"column \(='metod'\) is unknown; choose from method",
        text.replace("<!-- end of table -->", ""): "1 markers .* and 0 .* do not make 1 tables",
    }.items():
        with pytest.raises(ValueError, match=message):
            publish.update(bad, tmp_path)
    path = tmp_path / "README.md"
    path.write_text(re.sub(r"r\.json", str(tmp_path / "r.json"), text))
    assert publish.main([str(path)]) == 0
    assert "| bn | 98.06 ± 1.00 |" in path.read_text()


def test_readme_figures(record, tmp_path):
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    (results / "r.json").write_text(to_json(record))
    shown = [results / f"r_{name}.png" for name in ("differences", "shift")]
    text = "".join(f"![text]({path.relative_to(tmp_path)})\n" for path in shown)
    assert publish.figures(text, tmp_path) == shown
    path = tmp_path / "README.md"
    path.write_text(text)
    assert publish.main([str(path)]) == 0
    assert publish.figures(text, tmp_path) == []
    for figure in shown:
        with Image.open(figure) as image:
            assert min(image.size) > 100
    (results / "r.json").write_text(to_json(record | {"notes": ["another"]}))
    assert publish.figures(text, tmp_path) == shown
    not_probed = record | {"arms": [arm | {"distances": []} for arm in record["arms"]]}
    (results / "r.json").write_text(to_json(not_probed))
    with pytest.raises(ValueError, match=r"r_shift.png: r.json has nothing to draw"):
        publish.draw(shown[1])
