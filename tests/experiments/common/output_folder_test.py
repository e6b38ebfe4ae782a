"""What exists is never overwritten, studies go on, and nothing is left half-written."""

import dataclasses
import math
import re
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.common.files import read_json
from experiments.common.output_folder import (
    check_new,
    new_folder,
    open_study,
    options_of,
    whole_folder,
)


@dataclasses.dataclass
class Options:
    out: Path
    seconds: float = math.inf
    trained: Path | None = Path("a")
    sizes: tuple[int, ...] = (1, 2)


def refused(option, path):
    flag = option.replace("_", "-")
    text = f"`{option}` (={str(path)!r}) exists, and results are never overwritten; give another "
    return pytest.raises(ValueError, match=re.escape(f"{text}--{flag}"))


def test_files_are_new(tmp_path):
    check_new("json", None)
    check_new("json", tmp_path / "new.json")
    (tmp_path / "there.json").touch()
    with refused("json", tmp_path / "there.json"):
        check_new("json", tmp_path / "there.json")


def test_folders_are_new(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    assert new_folder("run_dir", str(folder), "digits") == folder
    assert folder.is_dir()
    with refused("run_dir", folder):
        new_folder("run_dir", folder, "digits")
    monkeypatch.chdir(tmp_path)
    folders = {new_folder("run_dir", None, "digits") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.parent == Path("runs") and folder.is_dir() for folder in folders)


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "new" / "out"
    with suppress(OSError), whole_folder("out", out) as folder:
        (folder / "half").touch()
        raise OSError
    assert list(out.parent.iterdir()) == []
    mine = out.parent / "out.tmp" / "mine"
    mine.parent.mkdir()
    mine.touch()  # Somebody's, whatever its name.
    with whole_folder("out", out) as folder:
        (folder / "all").touch()
    assert [path.name for path in out.iterdir()] == ["all"]
    assert sorted(out.parent.iterdir()) == [out, mine.parent]
    assert mine.exists()
    with refused("out", out), whole_folder("out", out):
        pytest.fail("it exists")


def test_a_study_goes_on_with_the_same_options(tmp_path):
    out = tmp_path / "new" / "study"
    options = options_of(Options(out), "out")
    for _ in range(2):  # Infinite numbers are the same again.
        open_study("out", out, options)
    assert read_json(out / "config.json") == options
    other = options_of(Options(out, sizes=(1,)), "out")
    with pytest.raises(ValueError, match=r"holds a study with another `sizes` \(=\[1, 2\], not"):
        open_study("out", out, other)
    # Killed as it began.
    (out / "config.json").unlink()
    open_study("out", out, other)
    assert read_json(out / "config.json") == other


@pytest.mark.parametrize("name", ["versions.json", "notes.tmp.txt", ".lock", "data.json"])
def test_a_file_of_a_name_that_we_use_is_somebodys(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with refused("out", tmp_path):
        open_study("out", tmp_path, {})
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").touch()
    for out in (tmp_path, tmp_path / "notes.txt"):
        with refused("out", out):
            open_study("out", out, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
