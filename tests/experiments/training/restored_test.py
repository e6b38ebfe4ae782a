"""What a finished run is restored with: the devices that are here."""

import pytest

from experiments.config.experiment import DevicesConfig, OptimConfig
from experiments.training.restored import read_config
from tests.experiments.handmade import make_run


@pytest.mark.parametrize(("batch_size", "num_devices"), [(64, None), (60, 1)])
def test_devices_of_the_run_need_not_be_here(tmp_path, batch_size, num_devices):
    """Nor need its batches fit those that are: here are 8."""
    make_run(
        tmp_path / "run",
        seeds_together=True,
        optim=OptimConfig(batch_size=batch_size),
        devices=DevicesConfig(precision="bfloat16"),
    )
    config = read_config(tmp_path / "run")
    assert config.devices == DevicesConfig(num_devices=num_devices, precision="bfloat16")
    assert config.optim.batch_size == batch_size


def test_of_a_finished_run(tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(ValueError, match="give the folder of a finished run"):
        read_config(tmp_path / "run")
