"""The paper's table in pieces: each ends by itself, and its headline is the search that `gpu_search` carries out."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu_reproduce, gpu_search
from metadarts.papers.reproduction import table_named
from metadarts.training.config import to_settings


@pytest.mark.thorough
def test_a_piece_stops_itself_and_says_where_it_is(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    words = ["--rehearse", "--folder", str(tmp_path / "table"), "--out", str(out), "--threads", "1", "--seconds", "0"]
    assert gpu_reproduce.main(words) == 0
    assert gpu_reproduce.main(words) == 0
    assert capsys.readouterr().out.count("not ended: call it again") == 2
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["finished"] for line in lines] == [False, False]
    assert {line["table"] for line in lines} == {"glyphs"}
    assert (tmp_path / "table" / "runs" / "headline-1shot-seed0" / "checkpoints" / "last.json").is_file()


def test_its_headline_is_the_search_in_pieces():
    headline = table_named(gpu_search.TABLE).trainings("full", gpu_search.SHOTS)[0]
    wanted = headline.config("fc100", gpu_search.SHOTS, 0, {})
    assert to_settings(gpu_search.configured({})) == to_settings(wanted)
    name = f"{headline.name}-{gpu_search.SHOTS}shot-seed0"
    assert gpu_search._options([]).run == gpu_search.FOLDER / "runs" / name


def test_without_data_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(gpu_search.VARIABLE, str(tmp_path))
    monkeypatch.setattr(gpu_search, "CHECKOUT", tmp_path / "checkout")
    assert gpu_reproduce.main(["--folder", str(tmp_path / "table")]) == gpu_search.NOTHING_TO_RUN
    assert "reproduce: skipped, no CIFAR-100" in capsys.readouterr().out
