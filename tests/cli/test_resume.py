"""A search that is killed, stopped or starved goes on from where it stood and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest

from benchmarks import kill_and_resume
from metadarts.cli.signals import StopRequest
from metadarts.training import RunFolder

HEARING = """
import signal
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
from metadarts.cli import main
main()
"""
"""A program that hears signals, also where the tests were started in the background or by nohup, which ignore some."""


@pytest.fixture
def program():
    """(words) -> the program in a process of its own, which does not outlive the test."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", HEARING, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(path, process, seconds=600.0):
    """Wait for ``path`` to appear while ``process`` lives."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.thorough
def test_two_kills_at_random_moments_change_no_bit(data, tmp_path):
    """The command line, in processes of its own, killed by SIGKILL; benchmarks/kill_and_resume.py does twenty."""
    rows = kill_and_resume.trials(str(data), kills=2, seed=1, folder=tmp_path)
    assert [row["differences"] for row in rows] == [[], []]


def test_a_difference_would_be_seen(run, tmp_path):
    expected = kill_and_resume.outcome(RunFolder(run))
    other = expected | {"best/step": expected["best/step"] + 1}
    tensor = next(name for name in expected if name.startswith("last/params/"))
    kind, content = other[tensor]
    other[tensor] = (kind, bytes([content[0] ^ 1]) + content[1:])
    assert kill_and_resume.differences(expected, expected) == []
    assert kill_and_resume.differences(expected, other) == sorted(["best/step", tensor])
    assert any("/memory/" in name for name in expected), "the optimiser's memory is compared too"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_with_a_checkpoint_to_go_on_from(program, search_words, tmp_path, name):
    out = tmp_path / "run"
    process = program(*search_words(out, "--meta-steps", "100000"))
    until(out / "metrics.jsonl", process)
    process.send_signal(getattr(signal, name))
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + getattr(signal, name)
    assert "Traceback" not in errors
    folder = RunFolder.open(out)
    step = folder.load("last").facts["step"]
    assert f"stopped after meta-step {step}; go on with: metadarts search --resume {out}" in said
    assert not folder.is_finished
    assert folder.load("last").memory or step == 0


@pytest.mark.thorough
def test_going_on_needs_nothing_but_the_folder(metadarts, search_words, monkeypatch, tmp_path):
    """Stopped twice, at its start and in the middle, against once through; in one process, so that it is quick."""
    assert metadarts(*search_words(tmp_path / "whole", "--meta-steps", "6")).code == 0
    polls = iter([True, False, False, True, *[False] * 1000])

    class Scripted(StopRequest):
        def __call__(self):
            self.signal = signal.SIGTERM
            return next(polls)

    monkeypatch.setattr(sys.modules["metadarts.cli.search"], "stop_on_signals", lambda: nullcontext(Scripted()))
    out = tmp_path / "stopped"
    assert metadarts(*search_words(out, "--meta-steps", "6")).code == 143
    assert RunFolder(out).load("last").facts["step"] == 0
    assert metadarts("search", "--resume", out).code == 143
    assert RunFolder(out).load("last").facts["step"] == 2
    answer = metadarts("search", "--resume", out)
    assert answer.code == 0, answer.err
    whole, stopped = (kill_and_resume.outcome(RunFolder(path)) for path in (tmp_path / "whole", out))
    assert kill_and_resume.differences(whole, stopped) == []
    steps = [line["step"] for line in RunFolder(out).records("train")]
    assert steps == sorted(set(steps)), "no step is recorded twice"


def test_a_finished_run_has_nothing_to_go_on_with(metadarts, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    answer = metadarts("search", "--resume", run)
    assert answer.code == 0
    assert "has ended; there is nothing to go on with" in answer.out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.fixture
def unfinished(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "unfinished")
    (copy / "finished.json").unlink()
    return copy


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is not a run folder"),
        (
            lambda run: _cut(next((run / "checkpoints").glob("last-*"))),
            "is damaged: its hash is not the one in last.json",
        ),
        (lambda run: (run / "checkpoints" / "last.json").write_text("{"), "no readable checkpoint 'last'"),
        (lambda run: _edit(run / "checkpoints" / "last.json", looks=None), "checkpoint 'last' is damaged"),
        (lambda run: _edit(run / "checkpoints" / "last.json", step=-1), "'last': step: expected int >= 0, got -1"),
        (lambda run: _swap(run, "nodes: 2", "nodes: 3"), "checkpoint of another space or network"),
        (lambda run: _swap(run, "learn_rates: false", "learn_rates: true"), "checkpoint of another configuration"),
        (lambda run: _swap(run, "steps: 1", "stepps: 1"), "unknown setting 'inner.stepps': did you mean 'steps'?"),
        (lambda run: _edit(run / "env.json", data_sha256="0" * 64), "its data are not what they were"),
    ],
    ids=["no run", "truncated", "no json", "no number", "no step", "space", "rates", "field", "data"],
)
def test_what_cannot_be_gone_on_with(metadarts, unfinished, spoil, words):
    spoil(unfinished)
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    answer = metadarts("search", "--resume", unfinished)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1
    left = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    assert {path: left[path] for path in before} == before, "nothing is lost"


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _swap(run, old, new):
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new, 1))


def test_two_searches_never_share_a_run(metadarts, unfinished):
    with RunFolder(unfinished).lock():
        answer = metadarts("search", "--resume", unfinished)
    assert (answer.code, "another search is running in it" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--ways", "3"), "leave out --ways"),
        (("--out", "elsewhere", "--set", "inner.steps=2"), "leave out --out, --set"),
    ],
)
def test_a_run_goes_on_as_it_was_configured(metadarts, run, more, words):
    answer = metadarts("search", "--resume", run, *more)
    assert (answer.code, words in answer.err) == (2, True), answer.err


@pytest.mark.slow
def test_a_terminal_that_closes_twice_still_gets_its_checkpoint(program, search_words, tmp_path):
    out = tmp_path / "run"
    process = program(*search_words(out, "--meta-steps", "100000", "--set", "training.save_seconds=1000"))
    until(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.002)
    process.send_signal(signal.SIGHUP)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGHUP
    assert "stopped after meta-step" in said


def test_a_last_line_torn_by_a_power_cut_is_mended(metadarts, search_words, tmp_path, unfinished):
    path = unfinished / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert metadarts("search", "--resume", unfinished).code == 0
    assert RunFolder(unfinished).records("resume")


@pytest.mark.parametrize("change", [{"best": "x"}, {"metrics_size": -1}, {"smooth_loss": "x"}, {"micro_batch": 0}])
def test_numbers_that_are_none(metadarts, unfinished, change):
    _edit(unfinished / "checkpoints" / "last.json", **change)
    answer = metadarts("search", "--resume", unfinished)
    assert (answer.code, "checkpoint 'last' is damaged" in answer.err) == (2, True)


def test_json_nested_too_deep(metadarts, unfinished):
    (unfinished / "checkpoints" / "last.json").write_text("[" * 100_000)
    answer = metadarts("search", "--resume", unfinished)
    assert (answer.code, "no readable checkpoint" in answer.err) == (2, True)
