"""What may be compared, how it is named, and every refusal."""

import pytest

from experiments.analysis.compare.combine import combine
from experiments.analysis.names import used_options
from experiments.config.experiment import ModelConfig, NormConfig, OptimConfig
from experiments.methods import NORMS
from tests.experiments.handmade import make_run


def names(compared):
    return [arm.name for arm in compared.arms]


def test_one_folder(tmp_path):
    run = make_run(tmp_path / "a", seeds=(0, 3))
    found = combine([run.folder])
    assert names(found) == ["bn", "ubn"]
    assert found.results.names == ("bn", "ubn")
    assert found.results.config.seeds == (0, 3)
    assert [(r.norm, r.seed) for r in found.results.runs] == [
        *(("bn", 0), ("bn", 3)),
        *(("ubn", 0), ("ubn", 3)),
    ]
    assert found.results.summary["results"] == run.summary["results"]
    assert found.target == 0.97
    assert combine([run.folder], target=0.95).results.summary["results"][0] == {
        **run.summary["results"][0],
        "updates_to_target": 10,
    }


def test_one_method_per_folder_and_the_base_comes_first(tmp_path):
    folders = [
        make_run(tmp_path / "a", norms=("ubn",)).folder,
        make_run(tmp_path / "b", norms=("ubn",), norm=NormConfig(unit="rms")).folder,
        make_run(tmp_path / "c", norms=("bn",)).folder,
        make_run(tmp_path / "d", norms=("ubn",), norm=NormConfig(alpha_init=0.5)).folder,
    ]
    found = combine(folders, base="bn")
    assert names(found) == [
        "bn",
        "ubn unit=reference",
        "ubn unit=rms",
        "ubn alpha_init=0.5 unit=reference",
    ]
    assert [arm.folders[1].name for arm in found.arms] == ["c", "a", "b", "d"]
    # A single one is named by what is not the default.
    assert names(combine([folders[2], folders[1]])) == ["bn", "ubn unit=rms"]


def test_seeds_of_several_folders_are_put_together(tmp_path):
    first = make_run(tmp_path / "a", seeds=(0, 1), correct=lambda norm, seed: 350 + seed)
    second = make_run(tmp_path / "b", seeds=(1, 2), correct=lambda norm, seed: 352)
    found = combine([first.folder, second.folder])
    assert found.results.config.seeds == (0, 1, 2)
    rows = found.results.summary["results"]
    assert [row["correct"] for row in rows] == [350, 351, 352] * 2
    assert len(found.notes) == 2
    assert "bn, seed 1, is in" in found.notes[0]
    assert "with ANOTHER accuracy; the first is used" in found.notes[0]
    assert "the same accuracy" in combine([first.folder, first.folder]).notes[0]


def test_other_fields_can_be_compared(tmp_path):
    folders = [
        make_run(tmp_path / str(rate), optim=OptimConfig(learning_rate=rate)).folder
        for rate in (0.1, 1.0)
    ]
    found = combine(folders, vary=["optim.learning_rate"], base="ubn optim.learning_rate=1")
    assert names(found)[0] == "ubn optim.learning_rate=1"
    assert "bn optim.learning_rate=0.1" in names(found)
    assert names(combine(folders, vary=["optim"])) == [
        *("bn optim.learning_rate=0.1", "ubn optim.learning_rate=0.1"),
        *("bn optim.learning_rate=1", "ubn optim.learning_rate=1"),
    ]


def test_differences_are_refused_and_named(tmp_path):
    first = make_run(tmp_path / "a", norms=("bn",)).folder
    other = make_run(
        tmp_path / "b",
        norms=("ubn",),
        optim=OptimConfig(epochs=3),
        model=ModelConfig(blocks=(2,), widths=(8,)),
        versions={"git_commit": "other"},
    ).folder
    with pytest.raises(ValueError, match="the runs differ in:") as error:
        combine([first, other])
    lines = str(error.value).splitlines()
    assert [line.split("`")[1] for line in lines[1:-1]] == [
        *("model.blocks", "model.widths", "optim.epochs", "versions.git_commit"),
    ]
    assert lines[3] == f"  `optim.epochs`: 15 in {first}; 3 in {other}"
    assert "--vary" in lines[-1]
    assert "--allow" in lines[-1]
    with pytest.raises(ValueError, match=r"the runs differ in:\n  `versions.git_commit`"):
        combine([first, other], vary=["model"], allow=["optim.epochs"])
    found = combine([first, other], vary=["model"], allow=["optim.epochs", "versions.git_commit"])
    assert names(found)[0] == "bn model.blocks=(1,1,1) model.widths=(16,32,64)"


def test_options_that_methods_share_are_no_part_of_them(tmp_path):
    bn = make_run(tmp_path / "a", norms=("bn",)).folder
    ubn = make_run(tmp_path / "b", norms=("ubn",), norm=NormConfig(momentum=0.5, unit="rms")).folder
    with pytest.raises(ValueError, match=r"`norm\.momentum`: 0\.9 of bn, 0\.5 of ubn") as error:
        combine([bn, ubn])
    assert "norm.unit" not in str(error.value)
    found = combine([bn, ubn], vary=["norm.momentum"])
    assert names(found) == ["bn", "ubn momentum=0.5 unit=rms"]


def test_options_are_compared_between_all_methods(tmp_path):
    """The first method has none of the options in which the other two differ."""
    none = make_run(tmp_path / "a", norms=("none",)).folder
    bn = make_run(tmp_path / "b", norms=("bn",)).folder
    ubn = make_run(tmp_path / "c", norms=("ubn",), norm=NormConfig(momentum=0.5)).folder
    with pytest.raises(ValueError, match=r"`norm\.momentum`: 0\.9 of bn, 0\.5 of ubn"):
        combine([none, bn, ubn])
    assert len(names(combine([none, bn, ubn], allow=["norm.momentum"]))) == 3


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        (
            {"train_images_sha256": "1"},
            {"train_images_sha256": "2"},
            "data.record.train_images_sha256",
        ),
        ({"classes": ["cat", "dog"]}, {"classes": ["dog", "cat"]}, "data.record.classes"),
        ({"train_size": 7}, {"train_size": 8}, "data.record.train_size"),
        ({"name": "mine"}, {"name": "yours"}, "data.record.name"),
    ],
)
def test_other_data_are_refused_or_noted(tmp_path, one, other, field):
    folders = [
        make_run(tmp_path / name, norms=(norm,), data=data).folder
        for name, norm, data in (("a", "bn", one), ("b", "ubn", other))
    ]
    with pytest.raises(ValueError, match=rf"the runs differ in:\n  `{field}`"):
        combine(folders)
    (note,) = combine(folders, allow=["data"]).notes
    assert f"differ in `{field}`, as allowed" in note


def test_the_name_of_the_data_is_free_where_there_are_checksums(tmp_path):
    folders = [
        make_run(
            tmp_path / name, norms=(norm,), data={"name": name, "test_images_sha256": "1"}
        ).folder
        for name, norm in (("a", "bn"), ("b", "ubn"))
    ]
    assert combine(folders).notes == []


def test_runs_of_earlier_versions_have_no_record_of_their_data(tmp_path):
    bn = make_run(tmp_path / "a", norms=("bn",)).folder
    ubn = make_run(tmp_path / "b", norms=("ubn",), data={"train_images_sha256": "1"}).folder
    (bn / "data.json").unlink()
    assert names(combine([bn, ubn])) == ["bn", "ubn"]


def test_seeds_must_be_the_same(tmp_path):
    bn = make_run(tmp_path / "a", norms=("bn",), seeds=(0, 1, 2)).folder
    ubn = make_run(tmp_path / "b", norms=("ubn",), seeds=(2, 1, 5)).folder
    with pytest.raises(ValueError, match=r"cannot be paired: bn: 0 1 2; ubn: 2 1 5\. Train"):
        combine([bn, ubn])
    found = combine([bn, ubn], allow=["seeds"])
    assert found.results.config.seeds == (1, 2)
    assert [run.seed for run in found.results.runs] == [1, 2, 1, 2]
    far = make_run(tmp_path / "c", norms=("gn",), seeds=(9,)).folder
    with pytest.raises(ValueError, match="cannot be paired"):
        combine([bn, far], allow=["seeds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "gn"}, r"`base` \(='gn'\) must be one of what is compared: bn, ubn\."),
        ({"target": 1.5}, r"`target` \(=1\.5\) must be in \(0, 1\]\."),
        ({"vary": ["optim.rate"]}, r"field \(='optim\.rate'\) is unknown; choose from seeds_tog"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    run = make_run(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        combine([run.folder], **arguments)


def test_no_folder_or_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"`folders` \(=\[\]\) must be at least one run folder"):
        combine([])
    with pytest.raises(ValueError, match=r"config\.json does not exist; give the folder"):
        combine([tmp_path])


@pytest.mark.parametrize("content", ["{}", "[]", '{"results": [{"norm": "bn"}]}', "3"])
def test_a_damaged_summary(tmp_path, content):
    run = make_run(tmp_path / "a")
    (run.folder / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"summary\.json is not what a run writes"):
        combine([run.folder])


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_rows_that_are_missing(tmp_path, kind):
    run = make_run(tmp_path / "a")
    (run.folder / "bn-seed0" / f"{kind}.jsonl").unlink()
    with pytest.raises(ValueError, match=rf"{kind}\.jsonl is missing or empty"):
        combine([run.folder])


def test_used_options():
    assert set(used_options("ubn", NormConfig())) >= {"norm.unit", "norm.alpha_init"}
    assert used_options("bn", NormConfig(momentum=0.5, unit="rms")) == {
        "norm.epsilon": 1e-5,
        "norm.momentum": 0.5,
    }
    assert used_options("none", NormConfig()) == {}
    for norm in NORMS:  # Every builder can be asked.
        used_options(norm, NormConfig())
    for conv in ("ws", "wn"):
        assert used_options(f"gn+{conv}", NormConfig()) == used_options("gn", NormConfig())
    assert set(used_options("bn+enorm", NormConfig())) == {
        *used_options("bn", NormConfig()),
        *(f"norm.enorm_{name}" for name in ("every", "c", "p")),
    }
