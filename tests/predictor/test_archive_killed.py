"""Two processes append to one archive and one is killed: what was acknowledged is there, nothing is half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metadarts.core.rng import Key
from metadarts.predictor.archive import Archive
from metadarts.predictor.archive_check import check_records
from metadarts.predictor.archive_rows import encode
from tests.predictor.appender import BATCH, batch

ROUNDS = 3
REST = 0.05
"""Seconds between the batches of the one that is not killed: it writes all the while, and the test is short."""
CHECKOUT = Path(__file__).resolve().parents[2]


def started(*words):
    words = [sys.executable, str(Path(__file__).with_name("appender.py")), *map(str, words)]
    given = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(words, env=given, stderr=subprocess.PIPE)


def acknowledged(told):
    """Batches whose acknowledgement was written to its end."""
    text = told.read_text() if told.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for_more(told, process):
    before, end = len(acknowledged(told)), time.monotonic() + 600
    while len(acknowledged(told)) < before + 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def kill(process):
    process.send_signal(signal.SIGKILL)
    require_killed(process)


def require_killed(process):
    process.wait(600)
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.thorough
def test_two_append_and_one_is_killed(tmp_path, record_property):
    archive, draw = tmp_path / "a.sqlite", Key(("tests", "killed")).numpy()
    survivor_told = tmp_path / "survivor"
    survivor = started(archive, survivor_told, 0, REST)
    wait_for_more(survivor_told, survivor)
    batches = {}
    for seed in range(1, ROUNDS + 1):
        told = tmp_path / f"told {seed}"
        process = started(archive, told, seed, 0)
        wait_for_more(told, process)
        time.sleep(draw.uniform(0, 0.1))
        kill(process)
        wait_for_more(survivor_told, survivor)  # the other goes on, whatever the killed one held
        batches[seed] = acknowledged(told)
        require_kept(archive, seed, batches[seed])
    kill(survivor)
    batches[0] = acknowledged(survivor_told)
    for seed, numbers in batches.items():
        require_kept(archive, seed, numbers)
    with Archive.open(archive) as opened:
        found = check_records(opened)
        assert found.faults == ()
        assert found.checked == len(opened)
        written = sum(map(len, batches.values()))
        extra = len(opened) - BATCH * written
        assert 0 <= extra <= BATCH * len(batches), "at most the one batch that each was at when it was killed"
    record_property("batches acknowledged, records written beyond them", (written, extra))


def require_kept(archive, seed, numbers):
    """Every acknowledged batch is there whole, and the one after it is there whole or not at all."""
    assert numbers == list(range(len(numbers)))
    with Archive.open(archive) as opened:
        there = {row.id for row in opened.rows()}
    for number in (*numbers, len(numbers)):
        kept = [encode(record).id in there for record in batch(seed, number)]
        assert all(kept) or (number == len(numbers) and not any(kept)), (seed, number, kept)


def test_one_that_dies_in_the_middle_of_writing_leaves_nothing_of_it(tmp_path):
    archive = tmp_path / "a.sqlite"
    require_killed(started(archive, 5))
    require_kept(archive, 5, [0])
    with Archive.open(archive, write=True) as opened:  # its lock has gone with it
        assert len(opened) == BATCH
        assert check_records(opened).faults == ()
        opened.add(batch(5, 1))
        assert len(opened) == 2 * BATCH
