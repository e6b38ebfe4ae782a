"""Folders of prepared data sets may be on cloud storage, as far as ArrayRecord reads it."""

import pytest

from experiments.common.cli import message
from experiments.config.data import DataConfig
from experiments.data import load_dataset
from experiments.data.prepare.records import data_root

ADDRESS = "gs://bucket/data"


def test_an_address_stays_whole(monkeypatch):
    assert f"{data_root(ADDRESS) / 'mnist'}" == f"{ADDRESS}/mnist"
    monkeypatch.setenv("TFDS_DATA_DIR", ADDRESS)
    assert f"{data_root(None)}" == ADDRESS


def test_what_array_record_does_not_read_is_refused():
    with pytest.raises(ValueError, match=r"\(='s3://b/x'\) must be on a file system of this mach"):
        data_root("s3://b/x")


def test_an_address_without_access_is_one_line(monkeypatch):
    def glob(self, pattern):
        raise RuntimeError("no credentials,\nnowhere")

    monkeypatch.setattr(type(data_root(ADDRESS)), "glob", glob)
    with pytest.raises(ValueError, match="no credentials") as caught:
        load_dataset(DataConfig("mnist", ADDRESS))
    assert message(caught.value) == (
        f"`data_dir` (='{ADDRESS}') cannot be read: RuntimeError: no credentials, nowhere. Give "
        "this machine access to it (uv pip install gcsfs; gcloud auth application-default login), "
        "or mount it and give that folder."
    )
