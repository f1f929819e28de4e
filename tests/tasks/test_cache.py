"""Cache files: whole or not at all, on the disk before they have their name, and readable by whom the umask lets."""

from __future__ import annotations

import os
import stat
import zipfile

import numpy as np
import pytest

from metadarts.tasks import cache


def test_the_umask_decides_the_rights(tmp_path):
    before = os.umask(0o027)
    try:
        cache.write_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o640


def test_content_is_on_the_disk_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace

    def watched_sync(descriptor):
        status = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")
        sync(descriptor)

    def watched_replace(source, target):
        steps.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with cache.whole_file(tmp_path / "a") as stream:
        stream.write(b"12345")
    assert steps == ["5 bytes", "name", "folder"]


def test_folder_that_cannot_be_synchronised_costs_nothing(tmp_path, monkeypatch):
    sync = os.fsync

    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    cache.write_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    assert cache.read_npz(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]


def test_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"raw bytes")
    with pytest.raises(cache.UnreadableFile, match="its member 'x' is no array"):
        cache.read_npz(tmp_path / "a.npz")


def test_header_that_claims_a_terabyte_takes_no_memory(tmp_path, claims_a_terabyte):
    claims_a_terabyte(tmp_path / "a.npz", "x")
    with pytest.raises(cache.UnreadableFile):
        cache.read_npz(tmp_path / "a.npz")
