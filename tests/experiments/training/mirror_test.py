"""The mirror of a run folder: atomic, never overwritten, and a run goes on from it."""

import json
import shutil
from unittest import mock

import fsspec
import pytest

from experiments import train
from experiments.benchmarks.faults.compare import compare_runs
from experiments.common import files
from experiments.training import job
from experiments.training.mirror import MANIFEST, Mirror, MirrorError
from tests.experiments.jobs import StopAfter

OPTIONS = """
--norms bn --seeds 0 --evals-per-epoch 1 --checkpoint-every 1 --optim.epochs 3
--optim.batch-size 128 --model.blocks 1 --model.widths 4 --probe.every 5 --probe.lag 4
"""


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs.clear()
    return "memory://bucket/run" if request.param == "memory" else f"file://{tmp_path}/bucket/run"


@pytest.fixture
def folder(tmp_path):
    """What looks like a run folder, with things of the moment."""
    folder = tmp_path / "run"
    (folder / "bn-seed0" / "checkpoints" / "11").mkdir(parents=True)
    (folder / "bn-seed0" / "checkpoints" / "11" / "data").write_bytes(b"weights of 11")
    (folder / "bn-seed0" / "checkpoints" / "22.orbax-checkpoint-tmp").mkdir()
    (folder / "bn-seed0" / "checkpoints" / "22.orbax-checkpoint-tmp" / "data").write_bytes(b"w")
    (folder / "bn-seed0" / "train.jsonl").write_text("1\n")
    (folder / "versions.json").write_text("{}")
    (folder / "config.tmp.json").write_text("{")
    (folder / ".lock").touch()
    return folder


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def finished(folder):
    return {n: c for n, c in content(folder).items() if "tmp" not in n and n != ".lock"}


def test_what_was_pushed_is_fetched(url, folder, tmp_path):
    Mirror(url).push(folder)
    Mirror(url).fetch(tmp_path / "again")
    assert content(tmp_path / "again") == finished(folder)
    assert len(finished(folder)) == 3


def test_an_interrupted_push_leaves_the_one_before(url, folder, tmp_path):
    mirror = Mirror(url)
    mirror.push(folder)
    before = finished(folder)
    (folder / "versions.json").write_text('{"changed": 1}')
    with (folder / "bn-seed0" / "train.jsonl").open("a") as rows:
        rows.write("2\n")
    shutil.rmtree(folder / "bn-seed0" / "checkpoints" / "11")
    put = Mirror._put

    def interrupted(self, name, write):
        if name == MANIFEST:
            raise KeyboardInterrupt
        put(self, name, write)

    with mock.patch.object(Mirror, "_put", interrupted), pytest.raises(KeyboardInterrupt):
        mirror.push(folder)
    Mirror(url).fetch(tmp_path / "before")
    assert content(tmp_path / "before") == before
    # And once one is not: what is gone is gone there, too.
    mirror = Mirror(url)
    mirror.push(folder)
    Mirror(url).fetch(tmp_path / "after")
    assert content(tmp_path / "after") == finished(folder)
    fs, root = fsspec.core.url_to_fs(url)
    assert len(fs.find(root)) == 1 + len(finished(folder))


def test_what_is_not_new_is_not_copied(url, folder):
    mirror = Mirror(url)
    mirror.push(folder)
    with mock.patch.object(Mirror, "_put") as put:
        mirror.push(folder)
    assert [call.args[0] for call in put.call_args_list] == [MANIFEST]


def test_damage_is_told(url, folder, tmp_path):
    Mirror(url).push(folder)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/bn-seed0/checkpoints/11/data", b"weights of 12")
    with pytest.raises(
        MirrorError, match=r"checkpoints/11/data in `mirror` .* is damaged; restore"
    ):
        Mirror(url).fetch(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    fs.pipe_file(f"{root}/{MANIFEST}", b"{}")
    with pytest.raises(MirrorError, match=r"is damaged: its mirror.json cannot be read"):
        Mirror(url)


def test_what_is_left_of_a_first_push_is_no_hindrance(url, folder, tmp_path):
    put = Mirror._put

    def interrupted(self, name, write):
        if "data" in name:
            raise KeyboardInterrupt
        put(self, name, write)

    with mock.patch.object(Mirror, "_put", interrupted), pytest.raises(KeyboardInterrupt):
        Mirror(url).push(folder)
    assert not Mirror(url).holds_run
    Mirror(url).push(folder)
    Mirror(url).fetch(tmp_path / "again")
    assert content(tmp_path / "again") == finished(folder)


def test_nothing_else_is_overwritten(url, folder, tmp_path):
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/thesis.tex", b"")
    with pytest.raises(MirrorError, match=r"holds something else than a run: give another"):
        Mirror(url)
    fs.rm_file(f"{root}/thesis.tex")
    Mirror(url).push(folder)
    (folder / "versions.json").write_text('{"time": 2}')
    with pytest.raises(MirrorError, match=r"holds another run than .*/run; results are never"):
        Mirror(url).check_of(folder)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "nowhere://x",
            r"`mirror` \(='nowhere://x'\) cannot be read: .* that fsspec knows",
        ),
        ("sftp://x", r"cannot be read. Its driver is not installed: uv pip install paramiko"),
        ("gs://bucket/run", r"Its driver is not installed: uv pip install gcsfs"),
    ],
)
def test_an_address_that_cannot_be(address, message):
    with pytest.raises(MirrorError, match=message):
        Mirror(address)


def test_a_machine_whose_disk_is_gone_goes_on_from_it(tmp_path, capsys):
    url = "memory://bucket/job"
    fsspec.filesystem("memory").store.clear()

    def run(name, *more):
        return train.main([*OPTIONS.split(), "--run-dir", str(tmp_path / name), *more])

    resumed = ("--resume", "auto", "--mirror", url)
    with mock.patch.object(job, "Preemption", return_value=StopAfter(18)):
        assert run("one", *resumed) == 143
    shutil.rmtree(tmp_path / "one")
    assert run("two", *resumed) == 0
    assert "bn, seed 0: goes on after update 14" in capsys.readouterr().out
    assert run("plain") == 0
    folders = [tmp_path / name / "bn-seed0" for name in ("two", "plain")]
    template = job_template(tmp_path / "plain")
    checks = compare_runs(*folders, template)
    assert min(check.size for check in checks) > 0
    assert [text for check in checks for text in check.differences] == []
    # The finished run is there as a whole, and a new one does not replace it.
    Mirror(url).fetch(tmp_path / "three")
    assert (tmp_path / "three" / "report.html").exists()
    assert files.read_json(tmp_path / "three" / "summary.json")["results"]
    assert run("four", "--mirror", url) == 1
    assert "holds a run, and results are never overwritten" in capsys.readouterr().err


def job_template(folder):
    """The shapes of a state of the run."""
    import jax

    from experiments.config.experiment import from_dict
    from experiments.data import load_dataset
    from experiments.training.program import build_program

    config = from_dict(json.loads((folder / "config.json").read_text()))
    dataset = load_dataset(config.data)
    init = build_program(config, "bn", dataset).init
    return jax.eval_shape(init, jax.random.key(0), dataset.train_images[:128])
