"""The pod check from its command line to its tables; on the TPU compiler where there is one."""

import json

import jax
import pytest

from experiments.benchmarks import networks
from experiments.benchmarks.pod_check import __main__ as cli
from experiments.benchmarks.pod_check import tables
from experiments.benchmarks.pod_check.collectives import Collective, count, total_bytes
from experiments.benchmarks.pod_check.compile import Compiled, compile_step
from experiments.benchmarks.pod_check.topology import SLICES, slice_of, tpu_devices
from experiments.common.provenance import version
from experiments.publish import tables_of
from experiments.training.program import updates_per_epoch
from tests.experiments.training.parallel import job

needs_tpu_compiler = pytest.mark.skipif(
    version("libtpu") is None, reason="libtpu is not installed: pip install 'jax[tpu]'"
)


@pytest.fixture(scope="module")
def recipe():
    """A network that compiles in seconds."""
    return networks.Recipe(job.configure(), job.DATASET)


@pytest.fixture(scope="module")
def compiled(recipe):
    """The step for the eight CPU devices, with both norms."""
    return tuple(compile_step(recipe, norm, jax.devices()) for norm in ("bn", "ubn"))


def test_numbers_of_a_step(compiled):
    base, norm = compiled
    assert (base.devices, base.batch_size) == (8, job.BATCH)
    # Kernel and bias of convolution and head, scale and bias of the norm; alpha.
    assert base.parameters == (9 * 8 + 8) + (8 * 10 + 10) + 2 * 8
    assert norm.parameters == base.parameters + 8
    for step in compiled:
        assert {c.kind for c in step.collectives} == {"all-reduce"}
        # Gradients are exchanged, and at least mean and variance.
        assert total_bytes(step.collectives) >= 4 * (step.parameters + 2 * 8)
        assert step.flops > 0
        assert step.bytes_accessed > 0
        assert step.allocated_bytes > 4 * 2 * step.parameters
        assert step.compile_s > 0


def test_a_compiler_without_effort(recipe, monkeypatch):
    """As that of jax 0.12; what it says is from there."""

    def refuse(lowered, options):
        (name,) = options
        raise jax.errors.JaxRuntimeError(f"INVALID_ARGUMENT: No such compile option: '{name}'")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(ValueError, match=r"`scaling_effort` \(=-1.0\) must be 0 with jax"):
        compile_step(recipe, "bn", jax.devices(), -1.0)


def step(**changes):
    collectives = (Collective("all-reduce", 100, 2, False), Collective("all-reduce", 5000, 1, True))
    fields = {
        "norm": "bn",
        "devices": 8,
        "batch_size": 32,
        "parameters": 10,
        "flops": 1e9,
        "bytes_accessed": 1e6,
        "allocated_bytes": 2_000_000,
        "peak_bytes": 1_000_000,
        "collectives": collectives,
        "compile_s": 1.0,
    }
    return Compiled(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"bytes_accessed": 1.02e6, "peak_bytes": 900_000}, set()),
        ({"bytes_accessed": 1.03e6}, {"bytes accessed"}),
        ({"allocated_bytes": 2_000_001}, {"memory allocated"}),
        ({"peak_bytes": 1_000_001}, {"memory, peak in use"}),
        ({"collectives": (Collective("all-reduce", 60, 3, False),)}, {"collectives"}),
        (
            {"collectives": (Collective("all-reduce", 103, 2, False),)},
            {"bytes of collectives"},
        ),
    ],
)
def test_targets(changes, missed):
    found = tables.targets(step(), step(norm="ubn", **changes))
    assert {target.what for target in found if not target.met} == missed


def rows(table):
    """Rows of a table by their first cells."""
    return {cells[0]: cells[1:] for cells in table.cells()}


def test_tables():
    base, norm = step(), step(norm="ubn", flops=1.5e9)
    found = rows(tables.main_table("title", base, norm))
    assert found["flops, 10^9"] == ["1.0", "1.5", "1.500"]
    assert found["collectives"] == ["2", "2", "1.000"]
    assert found["collectives in branches not usually taken"] == ["1", "1", "1.000"]
    # What is guarded does not count.
    by_kind = rows(tables.collective_table(base, norm))
    assert by_kind == {"all-reduce": ["up to 4 KiB", "2", "0.2", "2", "0.2"]}
    (scaling,) = rows(tables.scaling_table([("v5e:2x4", base, norm)])).values()
    assert scaling == ["8", "32", "2", "2", "0.00", "0.00", "1.0000", "1.0", "1.0", "1 + 1"]
    missed = tables.targets(step(), step(peak_bytes=10**9))
    assert rows(tables.target_table(missed))["memory, peak in use"][-1] == "MISSED"


def test_slices_have_as_many_chips_as_they_say():
    for generation, sizes in SLICES.items():
        for chips, (shape, slices) in sizes.items():
            numbers = [int(n) for n in shape.split("x")]
            product = slices
            for number in numbers:
                product *= number
            assert product == chips, (generation, shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norm", "foo"], "`norm` (='foo') is unknown; choose from bn, ubn"),
        (["--baseline", "foo"], "`norm` (='foo') is unknown"),
        (["--model", "vgg"], "resnet50"),
        (["--slices", "0"], "`slices` (=0) must be a positive number"),
        (["--scaling", "9"], "`scaling` (=9) must be a number of chips of v5e: choose from 8, 16"),
        (["--scaling-effort", "2"], "`scaling_effort` (=2.0) must be from -1 to 1"),
        (["--topology", "x1:2x2"], "generation (='x1') is unknown; choose from v5e, v6e, v5p"),
        (["--statistics", "grouped"], "`statistics_group` (=None) must be given if"),
    ],
)
def test_argument_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        cli.main(arguments)
    assert status.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "there.json").write_text("kept")
    assert cli.main(["--json", str(tmp_path / "there.json")]) == 1
    assert "results are never overwritten" in capsys.readouterr().err
    assert (tmp_path / "there.json").read_text() == "kept"


def test_pmap_needs_devices(recipe):
    with pytest.raises(ValueError, match=r"`parallel` \(='pmap'\) cannot be compiled for devices"):
        compile_step(networks.with_changes(recipe, parallel="pmap"), "bn", jax.devices())


def test_without_the_compiler_it_says_what_to_install(monkeypatch, capsys):
    def fail(**options):
        raise RuntimeError("no libtpu")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", fail)
    assert cli.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no TPU compiler for topology (='v5e:16x16'): install it with")
    assert error.endswith("(no libtpu).\n")


def test_the_whole_command_on_cpu_devices(monkeypatch, recipe, tmp_path, capsys):
    """All but the TPU compiler: the same step, compiled for the CPU devices there are."""
    asked = []

    def devices(topology, slices=1):
        asked.append((topology, slices))
        return jax.devices()

    monkeypatch.setattr(cli, "tpu_devices", devices)
    monkeypatch.setattr(cli, "make_recipe", lambda model, batch_size: recipe)
    path = tmp_path / "numbers.json"
    arguments = ["--batch-size", "32", "--scaling", "8", "256", "--json", str(path)]
    status = cli.main([*arguments, "--precision", "float32"])
    output = capsys.readouterr().out
    # The main slice again, with less effort, to see that collectives are the same.
    assert asked == [("v5e:16x16", 1), ("v5e:2x4", 1), ("v5e:16x16", 1)]
    assert "on v5e:16x16, collectives are those of effort 0" in output
    for text in ("bytes accessed, MB", "all-reduce", "Targets", "Scaling", "v5e:2x4"):
        assert text in output
    record = json.loads(path.read_text())
    assert str(tmp_path) not in path.read_text()
    command = "python -m experiments pod_check --batch-size 32 --scaling 8 256 --precision float32"
    assert record["command"] == command
    assert record["options"]["batch_size"] == 32
    found = record["pod_check"]
    assert [s["norm"] for s in found["steps"]] == ["bn", "ubn"]
    assert [row["slice"] for row in found["scaling"]] == ["v5e:2x4", "v5e:16x16"]
    assert status == (0 if all(target["met"] for target in found["targets"]) else 3)
    for table in tables_of(record).values():  # as they were printed
        for cells in table.cells():
            assert all(cell in output for cell in cells)
    found["scaling"][1]["steps"][1]["collectives"][0]["times"] += 1
    caption = tables_of(record)["scaling"].caption
    assert caption == "compiled with effort -1; on v5e:16x16, collectives are NOT those of effort 0"
    assert cli.main(["--batch-size", "30"]) == 1
    assert "the nearest are 24 and 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "network", "updates"),
    [("resnet50", "resnet50", 312), ("resnet101", "resnet101", 312), ("resnet110", "preact", 12)],
)
def test_recipes(model, network, updates):
    config, dataset = networks.make_recipe(model, 4096)
    assert config.model.name == network
    assert updates_per_epoch(config, dataset) == updates  # images // 4096
    with pytest.raises(ValueError, match="has no images here; train with"):
        dataset.pipeline(0, 4096)


def test_learning_rate_is_linear_in_the_batch_size():
    rates = [networks.make_recipe("resnet50", n).config.optim.learning_rate for n in (256, 4096)]
    assert rates == pytest.approx([0.1, 1.6])


def test_recipe_errors():
    with pytest.raises(ValueError, match=r"model \(='vgg'\) is unknown; choose from resnet50, res"):
        networks.make_recipe("vgg", 32)


@needs_tpu_compiler
def test_tpu_compiler(recipe):
    devices = tpu_devices("v5e:2x4")
    assert len(devices) == 8
    topology, slices = slice_of("v5e", 512)
    assert len(tpu_devices(topology, slices)) == 512
    bn, ubn = (compile_step(recipe, norm, devices) for norm in ("bn", "ubn"))
    # In float32 the guarded branch has collectives of its own; they do not run.
    assert count(ubn.collectives) <= count(bn.collectives)
    assert any(c.guarded for c in ubn.collectives)
    assert not any(c.guarded for c in bn.collectives)


@needs_tpu_compiler
def test_unknown_topology():
    with pytest.raises(ValueError, match=r"no TPU compiler for topology \(='v5e:3x3'\)"):
        tpu_devices("v5e:3x3")
