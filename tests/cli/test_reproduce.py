"""``metadarts reproduce``: lists, refuses in one line, stops with an exit code of its own, goes on, writes a table."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

import metadarts.tasks
from metadarts.cli.signals import StopRequest
from metadarts.papers.reproduction import TABLES, carry_out, tabulate
from metadarts.papers.reproduction.place import locked
from metadarts.papers.rows import ResultTable
from tests.papers.tiny_tables import job, shrink, source, spec

TRAININGS = ("headline", "maml")
WRITTEN = {"table.json", "table.md", "table.png", "table-comparisons.png"}


@pytest.fixture
def small(monkeypatch):
    """The table "glyphs" is a tiny one, on patterns that are open already."""
    shrink(monkeypatch)
    monkeypatch.setattr(metadarts.tasks, "open_source", lambda *_, **__: source())
    monkeypatch.setitem(TABLES, "glyphs", spec(TRAININGS))


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on by a second with every look at it, for this verb alone."""
    ticks = itertools.count()
    monkeypatch.setattr(
        sys.modules["metadarts.cli.reproduce"], "time", SimpleNamespace(monotonic=lambda: float(next(ticks)))
    )


def words(out, *more):
    return ["reproduce", "glyphs", "--out", out, "--shots", "1", "--device", "cpu", "--threads", "1", *more]


def test_without_a_name_it_lists_the_tables(metadarts):
    answer = metadarts("reproduce")
    assert answer.code == 0
    for name, table in TABLES.items():
        assert f"{name:14} {table.title}" in answer.out
        for split, of in table.sources.items():
            assert f"--split {split} ({of}): {table.splits[split]}" in answer.out
    assert "budgets: smoke: 5 minutes" in answer.out
    assert "'headline, cells'                each task's own cell, inherited weights" in answer.out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tnas-fc10", "--out", "x"], "unknown table 'tnas-fc10': did you mean 'tnas-fc100'"),
        (["glyphs", "--out", "x", "--budget", "hours"], "--budget 'hours': expected smoke, hour, full"),
        (["glyphs"], "reproduce needs --out FOLDER to work in"),
        (["glyphs", "--out", "x", "--split", "tnas"], "--split 'tnas': glyphs has built-in"),
        (["glyphs", "--out", "x", "--shots", "7"], "--shots 7: under the smoke budget glyphs has 1"),
        (["glyphs", "--out", "x", "--shots", "1", "--shots", "0"], "--shots 0: under the smoke budget glyphs has 1"),
        (["tnas-fc100", "--out", "x", "--shots", "1"], "--shots 1: under the smoke budget tnas-fc100 has 5"),
        (["glyphs", "--out", "x", "--data-root", "nowhere"], "--data-root 'nowhere': there is nothing at that place"),
        (["glyphs", "--out", "x", "--device", "tpu"], "tpu"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(refused, monkeypatch, tmp_path, given, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused("reproduce", *given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [["--seeds", "0"], ["--stop-after", "0"], ["--shots", "many"]])
def test_numbers_out_of_range_are_refused(metadarts, tmp_path, given):
    answer = metadarts("reproduce", "glyphs", "--out", tmp_path / "x", *given)
    assert answer.code == 2
    assert given[0] in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_stopped_in_time_it_goes_on_to_the_table_of_once_through(metadarts, small, clock, monkeypatch, tmp_path):
    monkeypatch.setitem(TABLES, "glyphs", spec(TRAININGS[:1]))
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    answer = metadarts(*words(whole))
    assert answer.code == 0, answer.err
    codes = []
    while not codes or codes[-1] == 3:
        answer = metadarts(*words(out, "--stop-after", "0.05"))  # at the third look at the clock
        codes.append(answer.code)
        assert len(codes) < 40, answer
        if answer.code == 3:
            assert f"stopped; the same command goes on from here ({out})" in answer.out
            assert not (out / "table.json").exists()
    assert codes[-1] == 0, answer.err
    assert len(codes) > 2
    assert WRITTEN <= {path.name for path in out.iterdir()}
    first, second = (ResultTable.from_json((folder / "table.json").read_text()) for folder in (whole, out))
    assert first.digest == second.digest
    assert f"digest {first.digest}" in answer.out
    assert (out / "table.md").read_text().strip() in answer.out
    told = (out / "table.md").read_text()
    assert all(row.method in told for row in second.rows)


def test_stopped_before_a_single_step_it_gets_there_all_the_same(metadarts, small, clock, monkeypatch, tmp_path):
    """A limit that starting up has used already: or the same command, again and again, would never end."""
    monkeypatch.setitem(TABLES, "glyphs", spec(TRAININGS[:1]))
    codes = []
    while not codes or codes[-1] == 3:
        codes.append(metadarts(*words(tmp_path, "--stop-after", "0.01")).code)  # at the first look at the clock
        assert len(codes) <= 20, "it does not go on"
    assert codes[-1] == 0
    assert WRITTEN <= {path.name for path in tmp_path.iterdir()}


def test_row_by_row_it_comes_to_the_table_of_once_through(metadarts, refused, small, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "rows"
    assert metadarts(*words(whole)).code == 0
    for row in ("maml", "headline, cells"):
        answer = metadarts(*words(out, "--row", row))
        assert answer.code == 0, answer.err
        so_far = ResultTable.from_json((out / "table-so-far.json").read_text())
        assert row in {each.name for each in so_far.rows}
        assert not (out / "table.json").exists()
    assert {each.name for each in so_far.rows} == {"maml", "headline, cells"}
    assert "Unfinished: " in so_far.notes[0]
    assert {path.name for path in (out / "runs").iterdir()} == {"maml-1shot-seed0", "headline-1shot-seed0"}
    assert metadarts(*words(out)).code == 0
    first, second = (ResultTable.from_json((folder / "table.json").read_text()) for folder in (whole, out))
    assert first.digest == second.digest
    assert "--row 'mamml': expected one of 'headline', 'headline, support statistics'" in refused(
        *words(out, "--row", "mamml")
    )
    assert "--so-far shows every row that is there: leave out --row" in refused(
        *words(out, "--row", "maml", "--so-far")
    )


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(refused, small, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert "holds something else (thesis.txt); give a new or an empty folder" in refused(*words(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert "is a file; give the name of a folder" in refused(*words(tmp_path / "thesis.txt"))


def test_one_edited_test_episode_is_refused(metadarts, refused, small, tmp_path):
    out = tmp_path / "out"
    assert metadarts(*words(out)).code == 0
    path = out / "episodes-1shot.jsonl"
    header, first, *rest = path.read_text().splitlines()
    task = json.loads(first)
    rows = source().classes[task["classes"][0]].rows.tolist()
    task["support"][0][0] = next(row for row in rows if row not in task["query"][0] + task["support"][0])
    path.write_text("\n".join([header, json.dumps(task), *rest]) + "\n")
    before = (out / "table.json").read_bytes()
    assert "was changed: its episodes hash to" in refused(*words(out))
    assert (out / "table.json").read_bytes() == before


def test_the_folder_of_another_table_is_refused(refused, small, tmp_path):
    plan = {"table": "tnas-fc100", "budget": "full", "split": "", "episodes": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    said = refused(*words(tmp_path))
    assert "holds another table: its table is 'tnas-fc100', asked for is 'tiny'; give another --out" in said


def test_a_place_in_use_is_refused(refused, small, tmp_path):
    with locked(tmp_path):
        assert "another process is at work in it" in refused(*words(tmp_path))


def test_a_signal_stops_with_its_own_exit_code(metadarts, small, monkeypatch, tmp_path):
    class Asked(StopRequest):
        def __call__(self):
            self.signal = signal.SIGTERM
            return True

    monkeypatch.setattr(sys.modules["metadarts.cli.reproduce"], "stop_on_signals", lambda: nullcontext(Asked()))
    answer = metadarts(*words(tmp_path / "out"))
    assert (answer.code, "the same command goes on from here" in answer.out) == (128 + signal.SIGTERM, True)
    assert not (tmp_path / "out" / "table.json").exists()


def test_so_far_of_nothing_is_refused(refused, small, tmp_path):
    assert "holds no table that was begun" in refused(*words(tmp_path / "out", "--so-far"))


def test_so_far_writes_files_of_its_own(metadarts, small, monkeypatch, tmp_path):
    monkeypatch.setitem(TABLES, "glyphs", spec(TRAININGS[:1]))
    assert metadarts(*words(tmp_path)).code == 0
    (tmp_path / "measured" / "1shot" / "pixels-pixels.json").unlink()
    before = (tmp_path / "table.json").read_bytes()
    answer = metadarts(*words(tmp_path, "--so-far"))
    assert answer.code == 0, answer.err
    assert (tmp_path / "table.json").read_bytes() == before
    table = ResultTable.from_json((tmp_path / "table-so-far.json").read_text())
    assert [row.name for row in table.rows] == [
        "headline", "headline, support statistics", "headline, no steps", "headline, cells",
    ]  # fmt: skip
    assert "Unfinished: 1 row is not measured yet: nearest class mean of pixels (1-shot, seed 0)." in answer.out


def test_the_verb_passes_its_words_on(metadarts, small, monkeypatch, tmp_path):
    """Seeds, shots and split."""
    tiny = spec(TRAININGS[:1])
    monkeypatch.setitem(TABLES, "glyphs", tiny)
    answer = metadarts(*words(tmp_path / "out", "--seeds", "2", "--split", "other"))
    assert answer.code == 0, answer.err
    work = job(tmp_path / "mine", tiny, seeds=(0, 1), split="other")
    expected = tabulate(work, carry_out(work))
    assert ResultTable.from_json((tmp_path / "out" / "table.json").read_text()).digest == expected.digest
