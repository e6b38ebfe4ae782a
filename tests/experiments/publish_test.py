"""The numbers of README.md and docs/ are those of the records in experiments/results/."""

import json
import re
from statistics import geometric_mean

import pytest
from PIL import Image

from experiments import publish
from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.record import to_json
from tests.experiments.analysis.figures.overlap_test import check
from tests.experiments.handmade import make_run


@pytest.fixture
def record(tmp_path):
    correct = {"bn": [350, 352, 357], "ubn": [353, 354, 358]}
    run = make_run(tmp_path / "a", seeds=(0, 1, 2), correct=lambda norm, seed: correct[norm][seed])
    return make_record(combine([run.folder]), "")


@pytest.mark.parametrize("page", publish.pages(), ids=lambda p: str(p.relative_to(publish.ROOT)))
def test_pages_are_what_the_records_say(page):
    text = page.read_text()
    assert publish.update(text) == text, "run python -m experiments publish"
    assert publish.figures(page) == [], "run python -m experiments publish"


def test_pages_show_tables_and_figures():
    texts = {page: page.read_text() for page in publish.pages()}
    assert sum(text.count("<!-- table:") for text in texts.values()) > 20
    shown = {
        found[1].rpartition("/")[2] for t in texts.values() for found in publish.SHOWN.finditer(t)
    }
    drawn = {path.name for path in (publish.ROOT / "experiments" / "results").glob("*.png")}
    assert shown == drawn - {"digits_ics.png"}


def stored(name):
    return json.loads((publish.ROOT / "experiments" / "results" / f"{name}.json").read_text())


def claimed(page, pattern):
    """The numbers of a sentence of a page."""
    text = " ".join((publish.ROOT / page).read_text().split())
    (found,) = re.findall(pattern, text)
    return [float(number.replace(",", "")) for number in found]


def test_words_of_published_figures_stand_apart():
    names = {
        found[1].rpartition("/")[2]
        for page in publish.pages()
        for found in publish.SHOWN.finditer(page.read_text())
    }
    assert len(names) > 3
    for name in sorted(names):
        check(publish.made(publish.ROOT / "experiments" / "results" / name))


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
        "docs/benchmarks.md",
        r"layer reads full arrays (\d+) times and writes them twice where `nn.BatchNorm` takes "
        r"(\d+) and (\d+) \(naive: (\d+) and (\d+)\)",
    )
    reads = traffic["UnitizedBatchNorm"][0]
    assert found == [reads, *traffic["BatchNorm"], *traffic["naive"]]
    found = claimed(
        "docs/benchmarks.md",
        r"it keeps ([\d.]+) arrays for the backward pass instead of ([\d.]+) \(bfloat16: ([\d.]+) "
        r"instead of ([\d.]+)\)",
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
        "docs/results.md",
        r"that by the moments is (\d+) to ([\d,]+) times the distance and the paper's own, in "
        r"alpha, (\d+) to ([\d,]+) times",
    )
    for pattern in (r"by the moments, (\d+) to ([\d,]+)", r"closed form are (\d+) to ([\d,]+)"):
        assert ends[:2] == claimed("README.md", pattern)


def test_claims_on_shift_and_accuracy():
    accuracy = stored("measures")["accuracy"]
    found = [accuracy[data]["em, relative"]["recipes"] for data in ("digits", "mnist5k")]
    assert all(low < 0 < high for _, low, high in found)  # as README says
    rounded = [round(value, 2) for value, *_ in found]
    assert (
        claimed("README.md", r"correlation is (-[\d.]+) on the digits and ([\d.]+) on MNIST")
        == rounded
    )


def cost_cells():
    """The numbers of README's table of costs, by row; None for a dash."""
    text = (publish.ROOT / "README.md").read_text()
    (table,) = re.findall(r"^\| \| CPU, measured .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = (line.strip("| ").split(" | ") for line in table.splitlines())
    return [[None if cell == "-" else float(cell) for cell in cells] for _, *cells in rows]


def test_claims_on_cost():
    timed = [r for r in stored("bench_layer")["rows"]["time"] if r["passes"] == "forward+backward"]

    def ratio(dtype, images):
        of = [
            row["ratios"]["UnitizedBatchNorm"][0]
            for row in timed
            if row["dtype"] == dtype and (len(row["shape"]) > 2) == images
        ]
        return round(geometric_mean(of), 2)

    (step,) = (row for row in stored("bench_step")["rows"] if row["network"] == "resnet18")

    def on_gpu(group, dtype):
        times = {}
        for row in stored("bench_gpu")["rows"]:
            if row["devices"] == 1 and row["dtype"] == dtype and row["group"].startswith(group):
                times.setdefault(str(row["shape"]), {})[row["norm"]] = row["time_us"]
        of = [time["UnitizedBatchNorm"] / time["BatchNorm"] for time in times.values()]
        return round(geometric_mean(of), 2)

    gpu_step = {
        row["norm"]: row["large_bytes"]
        for row in stored("bench_gpu_steps")["rows"]
        if row["kind"] == "resnet50"
    }
    compiled = {row[0]: row[-1] for row in publish.tables_of(stored("pod_resnet50"))["step"].rows}
    assert cost_cells() == [
        [ratio("float32", True), on_gpu("chain", "float32"), None],
        [ratio("bfloat16", True), on_gpu("chain", "bfloat16"), None],
        [ratio("float32", False), on_gpu("dense", "float32"), None],
        [round(step["ratios"]["ubn"][0], 2), None, None],
        [
            *(None, round(gpu_step["UnitizedBatchNorm"] / gpu_step["BatchNorm"], 3)),
            round(float(compiled["bytes accessed, MB"]), 3),
        ],
        [None, None, round(float(compiled["memory, peak in use, MB"]), 3)],
    ]
    runs = stored("bench_probe")["rows"]["run"]
    (images,), (every,) = ({run[key] for run in runs} for key in ("images", "every"))
    added = max(round(100 * run["added"][0]) for run in runs)
    assert claimed(
        "README.md", r"Probing (\d+) images every (\d+) updates adds at most (\d+) % to a run"
    ) == [images, every, added]


def test_tables(record, tmp_path, capsys):
    (tmp_path / "r.json").write_text(to_json(record))
    begin = "<!-- table: r.json results | method | test accuracy, % -->\n"
    text = f"# A\n\n{begin}old\n<!-- end of table -->\n\ntext\n"
    made = publish.update(text, tmp_path)
    assert "| BatchNorm | 98.06 ± 1.00 |\n" in made
    assert made.startswith(f"# A\n\n{begin}| method | test accuracy, % |\n|---|---|\n| BatchNorm |")
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
    for content in ('{"benchmark": "layer"}', "{", "[]"):
        (tmp_path / "d.json").write_text(content)
        with pytest.raises(ValueError, match=r"d.json is damaged \(.*restore it from a copy"):
            publish.update(text.replace("r.json", "d.json"), tmp_path)
    path = tmp_path / "README.md"
    path.write_text(re.sub(r"r\.json", str(tmp_path / "r.json"), text))
    assert publish.main([str(path)]) == 0
    assert "| BatchNorm | 98.06 ± 1.00 |" in path.read_text()


def test_figures(record, tmp_path):
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    (results / "r.json").write_text(to_json(record))
    shown = [results / f"r_{name}.png" for name in ("differences", "shift")]
    pages = [tmp_path / "README.md", tmp_path / "docs" / "page.md"]
    pages[1].parent.mkdir()
    for page, start in zip(pages, ("experiments/", "../experiments/"), strict=True):
        page.write_text("".join(f"![a\nb]({start}results/{path.name})\n" for path in shown))
        assert publish.figures(page) == shown
    assert publish.main([str(pages[1])]) == 0
    assert [publish.figures(page) for page in pages] == [[], []]
    for figure in shown:
        with Image.open(figure) as image:
            assert min(image.size) > 100
    (results / "r.json").write_text(to_json(record | {"notes": ["another"]}))
    assert publish.figures(pages[0]) == shown
    not_probed = record | {"arms": [arm | {"distances": []} for arm in record["arms"]]}
    (results / "r.json").write_text(to_json(not_probed))
    with pytest.raises(ValueError, match=r"r_shift.png: r.json has nothing to draw"):
        publish.draw(shown[1])
