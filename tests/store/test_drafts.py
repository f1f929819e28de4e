"""A draft is moved whole or removed; what a killed process left goes with the next one, what others make stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from metadarts.store import drafts
from metadarts.store.drafts import drafted

DIES = """
import os, signal, sys
from pathlib import Path
from metadarts.store.drafts import drafted
with drafted(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print("at work", flush=True)
    if sys.argv[2] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
"""


def begun(path, how):
    process = subprocess.Popen(
        [sys.executable, "-c", DIES, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    return process


def grow_old(folder):
    """Drafts so young may not have their locks yet."""
    for path in folder.iterdir():
        before = time.time() - 10 * drafts.YOUNG_S
        os.utime(path, (before, before))


def test_a_draft_is_moved_or_removed(tmp_path):
    path = tmp_path / "deep" / ("é" * 120)
    with drafted(path) as draft:
        draft.write_text("whole")
        draft.rename(path)
    with pytest.raises(OSError, match="directory"), drafted(path) as draft:
        (draft / "missing").write_text("half")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "whole"


def test_what_a_killed_process_left_is_removed_and_what_others_make_is_not(tmp_path):
    path = tmp_path / "result"
    (tmp_path / ".result.mine.txt").write_text("mine")
    at_work = begun(path, "works")
    try:
        begun(path, "dies").communicate(timeout=60)
        left = {found for found in tmp_path.iterdir() if found.is_dir()}
        assert len(left) == 2
        grow_old(tmp_path)
        with drafted(path):
            pass
        (kept,) = (found for found in tmp_path.iterdir() if found.is_dir())
        assert (kept / "result").read_text() == "half"
    finally:
        at_work.communicate("\n", timeout=60)
    assert [found.name for found in tmp_path.iterdir()] == [".result.mine.txt"]


def test_a_folder_of_others_that_is_named_alike_stays(tmp_path):
    """Another name, no lock, or a link to what is elsewhere."""
    path, elsewhere = tmp_path / "result", tmp_path / "elsewhere"
    for folder in (tmp_path / ".result.2024.partial", tmp_path / ".result.abcdefgh.partial", elsewhere):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    (elsewhere / ".lock").touch()
    (tmp_path / ".result.ijklmnop.partial").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    for folder in (*tmp_path.iterdir(), elsewhere):
        os.utime(folder, (0, 0))
    with drafted(path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
