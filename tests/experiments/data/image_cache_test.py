"""The cache of decoded images: kept until something changes, checked, bounded and cleared."""

import os

import numpy as np
import pytest

from experiments.data import image_cache
from experiments.data.array_cache import size_of
from tests.experiments.data.folders import load, make_root, write


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def test_decoded_once_and_again_when_the_content_changes(root):
    before = load(root)
    (cache,) = (root.parent / "cache").iterdir()
    times = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = load(root)
    np.testing.assert_array_equal(again.train_images, before.train_images)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == times
    # The same size and time, but other content (not compressed, so sizes are equal).
    path = root / "train" / "a" / "0.png"
    old = path.stat()
    write(path, before.train_images[0][::-1], compress_level=0)
    assert path.stat().st_size == old.st_size
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    changed = load(root)
    np.testing.assert_array_equal(changed.train_images[0], before.train_images[0][::-1])
    assert len(list((root.parent / "cache").iterdir())) == 2
    # A renamed class changes the labels.
    for split in ("train", "test"):
        (root / split / "a").rename(root / split / "z")
    assert load(root).train_labels.tolist() == [0] * 6 + [1] * 4


def test_default_cache_is_the_users(root, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load(root, cache_dir=None)
    assert len(list((tmp_path / "xdg" / "unitnorm_jax" / "images").iterdir())) == 1


def test_an_interrupted_decoding_leaves_no_cache(root):
    (root / "test" / "b" / "0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        load(root)
    assert list((root.parent / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written to .*file: .*--data.cache-dir FOLDER"):
        load(root, cache_dir=str(tmp_path / "file"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "no JSON"])
def test_a_damaged_cache_is_made_again(root, damage):
    before = load(root)
    images, record = np.array(before.train_images), before.record()
    (cache,) = (root.parent / "cache").iterdir()
    file = cache / ("description.json" if damage == "no JSON" else "train_images")
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:  # Mapped, a file that is too short would end the process with a signal.
        file.write_bytes(content[: len(content) // (1 if damage == "flipped" else 2)])
    again = load(root)
    np.testing.assert_array_equal(again.train_images, images)
    assert again.record() == record


def test_caches_used_longest_ago_make_room(root):
    for size in (4, 5, 6):
        load(root, image_size=size)
    folder = root.parent / "cache"
    first, second, third = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    os.utime(second, (1, 1))
    gigabytes = (size_of(first) + size_of(third) + 1) / 1e9
    load(root, image_size=6, cache_gigabytes=gigabytes)
    assert set(folder.iterdir()) == {first, third}
    load(root, image_size=6, cache_gigabytes=1e-9)  # The one in use is kept.
    assert set(folder.iterdir()) == {third}


def test_caches_are_listed_and_cleared(root, capsys):
    load(root)
    folder = str(root.parent / "cache")
    assert image_cache.main(["--cache-dir", folder]) == 0
    assert "Kept 1, 0.0 MB" in capsys.readouterr().out
    assert image_cache.main(["--cache-dir", folder, "--clear"]) == 0
    assert list((root.parent / "cache").iterdir()) == []


def test_folders_of_others_are_not_taken_for_caches(root):
    load(root)
    mine = root.parent / "cache" / "mine"
    mine.mkdir()
    (mine / "description.json").write_text("{}")
    left = root.parent / "cache" / f"{'0' * 32}.incomplete-x"
    left.mkdir()
    load(root, cache_gigabytes=1e-9)
    assert image_cache.main(["--cache-dir", str(mine.parent), "--clear"]) == 0
    assert list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize(("old", "new"), [('"|u1"', '"|i1"'), ('"bad_images": []', '"a": 1')])
def test_the_description_of_a_cache_is_checked_too(root, old, new):
    images = np.array(load(root).train_images)
    (cache,) = (root.parent / "cache").iterdir()
    file = cache / "description.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    np.testing.assert_array_equal(load(root).train_images, images)
