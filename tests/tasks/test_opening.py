"""Sources by name, the sizes each can have, and which source reads a path."""

from __future__ import annotations

import os
import re
from functools import partial

import numpy as np
import pytest

from metadarts.core.errors import ConfigError, DataError
from metadarts.tasks import SOURCES, open_source, recognise
from metadarts.tasks.sources.omniglot import FILE


def write_omniglot(path):
    images = np.zeros((12, 28, 28), np.uint8)
    numbers = {"character": np.repeat([2, 0, 1], 4), "drawer": np.tile(np.arange(4), 3)}
    np.savez(path, images=images, character_vinyals=np.arange(3), **numbers)
    return path


def write_npz(path):
    np.savez(path, images=np.zeros((6, 4, 4), np.uint8), label=np.arange(6) % 3)
    return path


def test_the_names():
    assert set(SOURCES) == {
        *("glyphs", "omniglot", "omniglot-1200", "cifar-fs", "fc100"),
        *("mini-imagenet", "tiered-imagenet", "folder", "npz", "widths", "widths-strips"),
    }


def test_small_grey_sources_in_another_form(tmp_path, monkeypatch):
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path / "cache"))
    source = open_source("omniglot", write_omniglot(tmp_path / "o.npz"), size=32, channels=3)
    assert (source.size, source.channels) == ((32, 32), 3)


def test_their_own_size_may_be_said(tmp_path):
    assert open_source("omniglot", write_omniglot(tmp_path / "o.npz"), size=28, channels=1).size == (28, 28)


@pytest.mark.parametrize("asked", [{"size": -1}, {"size": 1025}, {"channels": 2}, {"channels": 4}])
def test_sizes_that_no_source_has(asked, tmp_path):
    with pytest.raises(
        ConfigError, match=r"tasks\.size must lie in 0 .* to 1024 and tasks\.channels be 0, 1 or 3, given"
    ):
        open_source("folder", tmp_path, **asked)


@pytest.mark.parametrize("name", sorted(SOURCES))
@pytest.mark.parametrize("file", ["train.pkl", "data.PT", "data.pth", "data.pickle"])
def test_pickles_are_refused(name, file, tmp_path):
    (tmp_path / file).write_bytes(b"\x80\x04N.")
    for refuse in (lambda: open_source(name, tmp_path / file), lambda: recognise(tmp_path / file)):
        with pytest.raises(DataError, match=f"{file} is a pickle, and unpickling a file from elsewhere could run code"):
            refuse()


def test_recognises_files_by_their_arrays(tmp_path):
    assert recognise(write_omniglot(tmp_path / "a.npz")) == "omniglot"
    assert recognise(write_npz(tmp_path / "b.npz")) == "npz"


def test_file_with_other_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match=r"a\.npz holds the arrays x, y; expected images uint8"):
        recognise(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*a\.npz as an \.npz file"):
        recognise(tmp_path / "a.npz")


def test_recognises_omniglots_folders(tmp_path):
    (tmp_path / "a").mkdir()
    write_omniglot(tmp_path / "a" / FILE)
    assert recognise(tmp_path / "a") == "omniglot"
    for part in ("images_background", "images_evaluation"):
        (tmp_path / "b" / "omniglot-py" / part).mkdir(parents=True)
    assert recognise(tmp_path / "b") == "omniglot"


@pytest.mark.parametrize("file", ["00_apple.webp", "cifar-100-python/train", "cifar-100-python.tar.gz"])
def test_cifar_must_be_named(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "classes.json").write_text("{}")
    with pytest.raises(ConfigError, match=re.escape(f"--data cifar-fs --data-root {tmp_path} or --data fc100")):
        recognise(tmp_path)


def test_other_folders(tmp_path):
    (tmp_path / "01_holiday.webp").write_bytes(b"")
    assert recognise(tmp_path) == "folder"
    (tmp_path / "train.csv").write_text("filename,label\n")
    assert recognise(tmp_path) == "mini-imagenet"


def test_nothing_there_and_files_of_other_kinds(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        recognise(tmp_path / "none")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.zip: expected an \.npz file or a folder of images"):
        recognise(tmp_path / "a.zip")


DATA_NEEDED = sorted(set(SOURCES) - {"glyphs", "widths", "widths-strips"})
"""A cache that cannot be read costs glyphs only time; the widths take no place."""


def ways_to_open(path):
    return [partial(recognise, path), *(partial(open_source, name, path) for name in DATA_NEEDED)]


@pytest.mark.parametrize("suffix", ["", ".npz", ".pkl"])
def test_name_that_is_too_long(tmp_path, suffix):
    """Python 3.11's Path.exists raises for it."""
    for open_it in ways_to_open(tmp_path / ("a" * 300 + suffix)):
        with pytest.raises(DataError, match=r"a{300}.*File name too long"):
            open_it()


@pytest.fixture
def locked(tmp_path):
    """A folder that may not be entered, not even by root, who becomes nobody for the test."""
    folder = tmp_path / "locked"
    folder.mkdir()
    write_npz(folder / "a.npz")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)


@pytest.mark.parametrize("inside", ["", "a.npz", "train"])
def test_folder_that_may_not_be_entered(locked, inside):
    for open_it in ways_to_open(locked / inside):
        with pytest.raises(DataError, match=r"locked"):
            open_it()
