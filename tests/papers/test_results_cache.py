"""Rows on disk: share by share, no more than one lost to a stop or a kill, and never a row that was not measured."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metadarts.core.errors import RunError
from metadarts.core.progress import Progress
from metadarts.core.rng import Key
from metadarts.papers.reproduction import Stopped, carry_out
from metadarts.papers.reproduction.measuring import measure
from metadarts.papers.reproduction.plans import RowPlan
from metadarts.papers.reproduction.results_cache import Measured, Share, Shares, load_measured, save_measured
from metadarts.tasks import EpisodeSampler, nearest_class_mean
from metadarts.tasks.frozen import FrozenEpisodes, freeze
from tests.papers.tiny_tables import in_a_process, one_row, shrink, source

OF = {"episodes": "0" * 64, "mode": "cells"}
SHARES = [Share(0, 2, [0.25, 1.0], ["a", "b"], 1.5), Share(2, 4, [0.1, 1 / 3], ["a", "c"], 0.5)]
PIXELS = RowPlan("pixels", "", "pixels", "pixels")
TASKS = 7


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "deep" / "row.part.jsonl"


@pytest.fixture
def text(path) -> str:
    """What the file of the two shares holds."""
    shares = Shares(path, OF)
    for share in SHARES:
        shares.add(share)
    return path.read_text()


def test_shares_come_back(path, text):
    assert Shares(path, OF).done == SHARES
    assert path.read_text() == text, "and are not written otherwise"
    assert text.count("\n") == 3


def test_a_line_cut_anywhere_loses_its_own_share_alone(path, text):
    """Cut after each of its letters: what is read is a beginning of the shares, and the next one is added to it."""
    ends = [index + 1 for index, letter in enumerate(text) if letter == "\n"]
    for length in range(len(text)):
        path.write_text(text[:length])
        shares = Shares(path, OF)
        whole = max(0, sum(end <= length for end in ends) - 1)
        assert shares.done == SHARES[:whole], length
        for share in SHARES[whole:]:
            shares.add(share)
        assert path.read_text() == text, length


def line(share: Share, **changes: object) -> str:
    return json.dumps(vars(share) | changes) + "\n"


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([line(SHARES[1])], 0),  # the first is missing
        ([line(SHARES[0]), line(SHARES[0])], 1),  # twice
        ([line(SHARES[1]), line(SHARES[0])], 0),  # out of order
        ([line(SHARES[0]), line(SHARES[1], first=3)], 1),  # a gap
        ([line(SHARES[0]), line(SHARES[1], first=1)], 1),  # an overlap
        ([line(SHARES[0]), "{}\n", line(SHARES[1])], 1),  # nonsense between
        ([line(SHARES[0], accuracies=[0.5])], 0),  # of fewer tasks than it says
        ([line(SHARES[0]), "null\n"], 1),
    ],
)
def test_what_does_not_follow_is_dropped(path, lines, kept):
    path.parent.mkdir()
    path.write_text(json.dumps({"of": OF}) + "\n" + "".join(lines))
    assert Shares(path, OF).done == SHARES[:kept]
    assert len(path.read_text().splitlines()) == 1 + kept, "nor does it stay in the file"


@pytest.mark.parametrize("of", [OF | {"mode": "adapted"}, OF | {"episodes": "1" * 64}, OF | {"more": 1}, {}])
def test_the_shares_of_something_else_are_not_taken(path, text, of):
    assert Shares(path, of).done == []
    assert json.loads(path.read_text()) == {"of": of}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n"])
def test_a_file_of_nonsense_is_begun_anew(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert Shares(path, OF).done == []
    assert json.loads(path.read_text()) == {"of": OF}


def test_a_row_comes_back_to_the_last_bit(tmp_path):
    draws = Key(("tests", "kept")).numpy().random(50)
    measured = Measured(draws, 10, "transductive", 3.25, ("a",) * 50)
    save_measured(tmp_path / "deep" / "row.json", measured, OF)
    found = load_measured(tmp_path / "deep" / "row.json", OF, 50)
    assert found is not None
    np.testing.assert_array_equal(found.accuracies, draws)
    assert (found.steps, found.bn, found.seconds, found.genotypes) == (10, "transductive", 3.25, ("a",) * 50)
    with pytest.raises(RunError, match="its mode is 'cells', expected 'adapted'"):
        load_measured(tmp_path / "deep" / "row.json", OF | {"mode": "adapted"}, 50)
    assert load_measured(tmp_path / "none.json", OF, 50) is None


# Of a row that is measured


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> FrozenEpisodes:
    sampler = EpisodeSampler(source(), "test", 5, 1, 2)
    return freeze(tmp_path_factory.mktemp("episodes") / "e.jsonl", sampler, Key(("tests", "kept")), TASKS)


@pytest.fixture
def three_at_once(monkeypatch) -> None:
    monkeypatch.setattr(importlib.import_module("metadarts.papers.reproduction.measuring"), "PIXELS_AT_ONCE", 3)


@pytest.mark.usefixtures("three_at_once")
def test_each_stop_loses_nothing_that_was_measured(episodes, path):
    """Stopped after every share: three times, and the row is that of once through."""
    asked: list[tuple[int, int]] = []
    batch = FrozenEpisodes.batch

    def seen(self, first, last):
        asked.append((first, last))
        return batch(self, first, last)

    def stop(now: Progress) -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenEpisodes, "batch", seen)
        for _ in range(3):
            with pytest.raises(Stopped):
                measure(PIXELS, None, None, episodes, Shares(path, OF), stop)
        found = measure(PIXELS, None, None, episodes, Shares(path, OF), stop)
    assert asked == [(0, 3), (3, 6), (6, 7)], "no share is measured twice"
    np.testing.assert_array_equal(found.accuracies, nearest_class_mean(episodes.batch(0, TASKS)).double().numpy())


@pytest.mark.usefixtures("three_at_once")
def test_what_is_told_is_of_all_shares(episodes, path):
    told: list[tuple[float, float]] = []
    first = Share(0, 3, [1.0, 1.0, 1.0], [], 10.0)
    shares = Shares(path, OF)
    shares.add(first)
    found = measure(PIXELS, None, None, episodes, shares, lambda now: told.append((now.done, now.value)))
    assert [done for done, _ in told] == [6, 7]
    assert told[-1][1] == pytest.approx(found.accuracies.mean())
    assert found.accuracies[:3].tolist() == [1.0, 1.0, 1.0]
    assert found.seconds >= 10.0, "time before the stop counts"


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


@pytest.mark.thorough
@pytest.mark.usefixtures("small")
def test_killed_within_any_write_the_row_is_that_of_once_through(tmp_path):
    """SIGKILL within each write of a row in turn: its first line, its shares, the row as a whole, and the removal."""
    in_a_process("row", tmp_path)
    whole = one_row(tmp_path / "whole")
    name = "headline-1shot-seed0-cells"
    kept = {path.name: path for path in tmp_path.iterdir() if path.name != "whole"}
    lines = {}
    for moment, out in sorted(kept.items()):
        part = out / "measured" / "1shot" / f"{name}.part.jsonl"
        lines[moment] = part.read_text().count("\n") if part.exists() else 0
    assert [lines[moment] for moment in sorted(lines)] == [0, 1, 2, 3, 4, 4], "one share a write"
    for out in kept.values():
        work = one_row(out)
        assert carry_out(work).found
        ours, theirs = (
            json.loads((of.out / "measured" / "1shot" / f"{name}.json").read_text()) for of in (work, whole)
        )
        for field in ("of", "accuracies", "genotypes", "steps", "bn"):
            assert ours[field] == theirs[field]
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.part.jsonl*")]
    assert not left, "what was kept of a row that is whole is gone"
