"""What cannot be prepared, and what is not, is said at once; with what to do."""

import re
import sys
import time

import pytest

from experiments.config.data import DataConfig
from experiments.data import load_dataset
from experiments.data.prepare import __main__
from tests.experiments.data import archives
from tests.experiments.data.archives import needs_tensorflow


def test_what_is_not_prepared_is_named(tmp_path):
    message = (
        f"cifar10 is not prepared in {tmp_path}. Prepare it: python -m experiments prepare cifar10 "
        f"--data-dir {tmp_path}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        load_dataset(DataConfig(dataset="cifar10", data_dir=str(tmp_path)))


def test_default_folder_is_that_of_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "here"))
    with pytest.raises(ValueError, match=rf"is not prepared in {tmp_path}/here\."):
        load_dataset("cifar10")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=rf"is not prepared in {tmp_path}/tensorflow_datasets\."):
        load_dataset("cifar10")


@needs_tensorflow
def test_no_network_is_said_at_once(tmp_path, capsys, monkeypatch):
    """tensorflow-datasets alone would try for more than three minutes."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # Nothing is there.
    start = time.monotonic()
    assert __main__.main(["cifar10", "--data_dir", str(tmp_path)]) == 1
    assert time.monotonic() - start < 15
    error = " ".join(capsys.readouterr().err.split())
    assert f"error: {archives.CIFAR10} cannot be downloaded: " in error
    assert f"to {tmp_path}/downloads/manual/cifar-10-binary.tar.gz and run this again." in error


@needs_tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet2012"], r"ILSVRC2012_img_train\.tar and ILSVRC2012_img_val\.tar must be in"),
        (["cifar10", "--manual-dir", "none"], r"none/cifar-10-binary\.tar\.gz is missing; put it"),
    ],
)
def test_missing_archives(tmp_path, capsys, arguments, message):
    assert __main__.main([*arguments, "--data-dir", str(tmp_path)]) == 1
    assert re.match(f"error: .*{message}", capsys.readouterr().err)


@needs_tensorflow
def test_another_archive_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "cifar-10-binary.tar.gz").write_text("hello")
    options = ["--data-dir", str(tmp_path / "data"), "--manual-dir", str(tmp_path)]
    assert __main__.main(["cifar10", *options]) == 1
    message = f"error: {tmp_path}/cifar-10-binary.tar.gz is not the archive of cifar10: its SHA-256"
    assert capsys.readouterr().err.startswith(message)
    assert (tmp_path / "cifar-10-binary.tar.gz").read_text() == "hello"


def test_missing_tensorflow(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert __main__.main(["cifar10", "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "preparing cifar10 needs tensorflow" in error
    assert "uv pip install --group tf" in error


def test_unknown_data_set(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["digits"])
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "dataset (='digits') cannot be prepared; choose from mnist, cifar10, cifar100" in error


def test_help(capsys):
    with pytest.raises(SystemExit) as status:
        __main__.main(["--help"])
    assert status.value.code == 0
    output = capsys.readouterr().out
    for text in ("DATASET", "170 MB", "ILSVRC2012_img_train.tar", "--no-check"):
        assert text in output
