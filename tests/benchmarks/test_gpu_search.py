"""A search in pieces: each ends by itself, the next goes on, and every one leaves a row."""

from __future__ import annotations

import pytest

from benchmarks import gpu_search, rows

SECONDS = 30.0


@pytest.fixture
def call(tmp_path):
    """(seconds, more words) -> exit code, on one run folder and one file of rows."""
    words = ["--rehearse", "--run", str(tmp_path / "runs" / "search"), "--out", str(tmp_path / "rows.csv")]
    return lambda seconds, *more: gpu_search.main([*words, "--threads", "1", "--seconds", str(seconds), *more])


def test_pieces_go_on_where_the_last_one_stopped(call, tmp_path, capsys):
    assert call(0) == 0
    assert "not ended: call it again" in capsys.readouterr().out
    assert call(SECONDS, "--pieces", "3") == 0
    printed = capsys.readouterr().out
    assert "steps 0 to 4" in printed
    assert "validation accuracy" in printed
    assert "the search has ended" in printed
    assert call(SECONDS) == 0
    written = rows.read(tmp_path / "rows.csv")
    assert [(row["first_step"], row["last_step"], row["finished"]) for row in written] == [
        ("0", "0", "0"),
        ("0", "4", "1"),
    ]
    assert all(float(row["p50"]) > 0 and row["device"] for row in written)
    assert float(written[1]["total_seconds"]) >= float(written[0]["total_seconds"])
    assert written[1]["order"] == "first"
    assert "source=glyphs ways=2 shots=1 tasks=1 steps=1" in written[1]["sizes"]


def test_the_search_is_the_papers_on_fc100():
    config = gpu_search.configured({})
    assert (config.tasks.source, config.tasks.ways, config.tasks.shots) == ("fc100", 5, 5)
    assert (config.training.meta_steps, config.training.tasks, config.inner.steps) == (12500, 4, 5)
    assert config.training.capture


def test_without_data_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(gpu_search.VARIABLE, str(tmp_path))
    monkeypatch.setattr(gpu_search, "CHECKOUT", tmp_path / "checkout")
    assert gpu_search.main(["--run", str(tmp_path / "run")]) == gpu_search.NOTHING_TO_RUN
    assert "search: skipped, no CIFAR-100" in capsys.readouterr().out
    (tmp_path / "cifar100").mkdir()
    assert gpu_search.data_root(None) == tmp_path / "cifar100"


def test_a_package_that_is_not_there_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_search, "version", lambda name: None if name == "safetensors" else "1.0")
    assert gpu_search.main(["--run", str(tmp_path / "run")]) == gpu_search.NOTHING_TO_RUN
    assert capsys.readouterr().out == "search: skipped, not installed: safetensors\n"
