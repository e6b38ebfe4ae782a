"""What is said of the CIFAR-10 study, from runs made by hand."""

import numpy as np
import pytest
from scipy import stats

from experiments import publish
from experiments.analysis.run_file import write_run_file
from experiments.common.statistics import detectable
from experiments.studies.protocol.figures import accuracy_figure, measures_figure
from experiments.studies.protocol.runs import LayerRatios, layer_ratios, read_study
from experiments.studies.protocol.tables import tables
from tests.experiments.analysis.figures.overlap_test import check
from tests.experiments.handmade import LAYERS, ics_row, make_run

CORRECT = {"bn": (300, 310, 305), "ubn": (303, 309, 312), "bcn": (300, 310, 305)}


def rows(step, layer, value):
    """Shift of ubn is half of BatchNorm's; its square drifts, and 1 / 1000 of it is lost."""
    more = {"mean_drift": value**2, "kmm_sample_size": 8 - value / 1000, "mmd": -1.0}
    ends = {"relative_lower": 0.45 * value, "relative_upper": 0.55 * value}
    return ics_row(step, layer, value, gradient_cosine=1 - value / 1000, **more, **ends)


def write(folder, seeds, parts=None, made=rows):
    folder.mkdir(exist_ok=True)
    for norm in parts or ("bn", "ubn"):
        for seed in seeds:
            run = folder.parent / f"{folder.name}-{norm}-{seed}"
            scale = 1.0 if norm == "bn" else 0.5
            make_run(
                run,
                norms=(norm,),
                seeds=(seed,),
                rows=lambda t, layer, v, s=scale: made(t, layer, s * v),
                correct=lambda norm, seed: CORRECT[norm][seed],
                versions={"platform": f"machine {seed}"},
            )
            write_run_file(run, folder / f"{norm}-seed{seed}.json")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("study") / "s", (0, 1, 2))


def test_ratios_are_paired_by_update(folder):
    compared = read_study(folder)
    found = layer_ratios(compared, "ubn", "em")
    assert [layer.layer for layer in found] == list(LAYERS)
    for layer in found:
        assert layer.seeds == layer.lowest == layer.highest == (0.5,) * 3
        assert layer.sign == -1
    (stem, *_) = layer_ratios(compared, "ubn", "em, relative")
    np.testing.assert_allclose(stem.lowest, 0.5 * 0.45 / 0.55, rtol=1e-6)
    np.testing.assert_allclose(stem.highest, 0.5 * 0.55 / 0.45, rtol=1e-6)
    for measure, ratio in {
        "mean drift": 0.25,
        "KMM sample size": 0.5,
        "gradient cosine": 0.5,
    }.items():
        for layer in layer_ratios(compared, "ubn", measure):
            np.testing.assert_allclose(layer.seeds, ratio, rtol=1e-2)  # of 7.995, six digits
    # Of what was not measured, or is not positive, there is no ratio.
    assert layer_ratios(compared, "ubn", "channel W1") == []
    assert layer_ratios(compared, "ubn", "MMD") == []


@pytest.mark.parametrize(
    ("lowest", "highest", "sign"),
    [
        ((0.5, 0.6), (0.8, 0.9), -1),
        ((0.5, 0.6), (0.8, 1.1), 0),  # one seed's certificates overlap
        ((1.1, 1.2), (1.3, 1.4), 1),
        ((0.9, 1.2), (1.3, 1.4), 0),
        ((0.5, np.nan), (0.8, np.nan), 0),
    ],
)
def test_certificates_decide_in_every_seed(lowest, highest, sign):
    assert LayerRatios("a", (1.0, 1.0), lowest, highest).sign == sign


def test_tables(folder):
    made = tables(read_study(folder))
    assert list(made) == ["primary", "cost", "layers", "measures", "alpha"]
    names = [column.name for column in made["primary"].columns]
    found = dict(zip(names, made["primary"].rows[1], strict=True))
    differences = np.array([3, -1, 7]) / 360
    assert found["n"] == 3
    np.testing.assert_allclose(found["minus BatchNorm"], differences.mean())
    np.testing.assert_allclose(found["p"], stats.ttest_1samp(differences, 0).pvalue)
    np.testing.assert_allclose(found["power 0.8"], detectable(differences))
    absolute, relative = made["layers"].rows
    assert absolute[2:6] == (3, 3, 0, 0.5)
    assert relative[2:6] == (3, 3, 0, 0.5)
    measured = {row[1]: row for row in made["measures"].rows}
    assert list(measured) == [
        *("em, relative", "em", "mean drift", "KMM samples lost", "1 - gradient cosine")
    ]
    assert {row[-1] for row in measured.values()} == {3}


def test_seeds_that_all_methods_have(tmp_path):
    """Records are committed as runs end: what is there so far can be shown."""
    folder = write(tmp_path / "s", (0,), parts=("bn",))
    assert len(tables(read_study(folder))["primary"].rows) == 1
    check(accuracy_figure(read_study(folder)))
    write(folder, (0,), parts=("ubn",))
    write(folder, (1,), parts=("bn",))
    compared = read_study(folder)
    assert compared.results.config.seeds == (0,)
    assert [row[1] for row in tables(compared)["primary"].rows] == [1, 1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no file of a run; python -m experiments sweep"):
        read_study(tmp_path / "empty")


def test_figures(folder):
    compared = read_study(folder)
    for figure in (accuracy_figure(compared), measures_figure(compared)):
        check(figure)


def test_intervals_wider_than_all_accuracies_do_not_set_the_axis(folder):
    compared = read_study(folder)
    for run in compared.results.runs:
        run.eval[-1]["accuracy"] -= 0.1 * run.seed
    axis = accuracy_figure(compared).axes[0]
    np.testing.assert_allclose(axis.get_ylim(), (79, 101))  # 80 to 100, and a twentieth
    assert axis.dataLim.y0 < 79
    assert axis.dataLim.y1 > 101


def test_a_page_shows_runs(folder, tmp_path):
    study = tmp_path / "s"
    study.mkdir()
    for path in folder.iterdir():
        (study / path.name).write_bytes(path.read_bytes())
    page = tmp_path / "README.md"
    shown = [tmp_path / f"s_{key}.png" for key in publish.RUNS_FIGURES]
    images = "".join(f"![a]({path.name})\n" for path in shown)
    page.write_text(
        f"{images}\n<!-- table: {study} primary | method | n -->\n<!-- end of table -->\n"
    )
    assert publish.figures(page) == shown
    assert publish.main([str(page)]) == 0
    assert publish.figures(page) == []
    assert "| UnitizedBatchNorm | 3 |" in page.read_text()
    (study / "bn-seed2.json").unlink()
    assert publish.figures(page) == shown
    assert "| UnitizedBatchNorm | 2 |" in publish.update(page.read_text(), tmp_path)


def test_batch_norm_is_the_base_whatever_comes_before_it(tmp_path):
    folder = write(tmp_path / "s", (0,), parts=("bcn", "bn"))
    for path in list(folder.iterdir()):
        path.rename(folder / f"digits-{path.name}")
    assert read_study(folder).results.names[0] == "bn"


def test_methods_come_in_the_order_of_the_first_seed(tmp_path):
    """Names of files have hashes, whose order is another one with each seed."""
    folder = write(tmp_path / "s", (0, 1), parts=("bcn", "bn", "ubn"))
    for path in list(folder.iterdir()):
        path.rename(folder / f"digits-{path.name.replace('ubn-seed1', 'a-seed1')}")
    assert list(read_study(folder).results.names) == ["bn", "bcn", "ubn"]
