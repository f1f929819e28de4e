"""Two checkouts take turns, and nothing is compared where they compute other numbers."""

from __future__ import annotations

import pytest

from benchmarks import against


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """(their loss) -> exit code; our W1 takes 2 s, theirs 1 s."""
    asked = []

    def isolated(function, given, *, threads, root):
        asked.append((given["order"], root))
        mine = root == against.ROOT
        return {"seconds": [2.0 if mine else 1.0], "result": 1.5 if mine else runs.loss}

    monkeypatch.setattr(against, "run_isolated", isolated)
    monkeypatch.setattr(against, "script", lambda root, code: 0.1)

    def runs(loss):
        runs.loss = loss
        return against.main([str(tmp_path), "--repetitions", "2"])

    runs.asked, runs.other = asked, tmp_path
    return runs


def test_they_take_turns_and_ratios_go_by_repetition(runs, capsys):
    assert runs(1.5) == 0
    assert runs.asked == [(order, root) for order in ("second", "first") for root in (against.ROOT, runs.other) * 2]
    table = capsys.readouterr().out.splitlines()
    assert table[4].split(" | ")[-1].strip() == "2 / 2 / 2"


def test_other_numbers_are_no_comparison(runs, capsys):
    assert runs(1.6) == 1
    assert "compare nothing" in capsys.readouterr().err


def test_a_process_runs_in_the_checkout_that_is_named(tmp_path):
    (tmp_path / "here.py").write_text("")
    assert against.script(tmp_path, "import here") > 0
