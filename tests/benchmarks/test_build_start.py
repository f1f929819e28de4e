"""Making a bundled start anew: where its file lies, and when two files are equal."""

from __future__ import annotations

import dataclasses

from benchmarks import build_start
from metadarts.fewshot import BUNDLED, open_start


def test_every_bundled_start_lies_in_the_folder_that_is_written_to():
    assert all((build_start.STARTS / f"{name}.safetensors").is_file() for name in BUNDLED)


def test_equal_are_files_with_the_same_tensors_whatever_their_metadata_says(tmp_path):
    start, bundled = open_start("glyphs"), build_start.STARTS / "glyphs.safetensors"
    start.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() != bundled.read_bytes(), "today's names of settings"
    assert build_start.same_tensors(tmp_path / "again.safetensors", bundled)

    params = dict(start.params)
    name = min(params)
    params[name] = -params[name]
    dataclasses.replace(start, params=params).save(tmp_path / "other.safetensors")
    assert not build_start.same_tensors(tmp_path / "other.safetensors", bundled)


def test_a_search_has_the_decay_that_the_bundled_starts_were_searched_with(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(build_start.subprocess, "run", lambda command, **_: called.append(command))
    build_start.search("glyphs", tmp_path / "run", None, 1)
    assert "outer.alpha_decay=0.001" in called[0]
    assert open_start("glyphs").config.outer.alpha_decay == 0.001
