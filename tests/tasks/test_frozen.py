"""Frozen test episodes: the sampler's own tasks as a file, and a file that was edited anywhere is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metadarts.core.errors import DataError, RunError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, Source
from metadarts.tasks.frozen import freeze, thaw
from metadarts.tasks.sampler import EpisodePlan, episodes_sha256

TASKS, WAYS, SHOTS, QUERIES = 4, 3, 2, 3
KEY = Key(("tests", "frozen"))
Line = dict[str, Any]


@pytest.fixture(scope="module")
def sampler(toy: Source) -> EpisodeSampler:
    return EpisodeSampler(toy, "test", WAYS, SHOTS, QUERIES)


@pytest.fixture
def path(sampler: EpisodeSampler, tmp_path: Path) -> Path:
    place = tmp_path / "episodes.jsonl"
    freeze(place, sampler, KEY, TASKS)
    return place


@pytest.fixture
def edit(path: Path) -> Callable[[Callable[[list[Line]], object]], None]:
    """(a change of the list of lines, in place) -> None; the file is written again with it."""

    def edited(change: Callable[[list[Line]], object]) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        change(lines)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    return edited


def same_batches(ours, theirs):
    names = ("support_images", "support_labels", "support_mask", "query_images", "query_labels", "query_mask")
    return all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in names)


def test_frozen_tasks_are_the_samplers_own(sampler, path):
    """Pixels and labels, bit for bit, also in slices."""
    frozen = thaw(path, sampler, TASKS)
    assert frozen.tasks == TASKS
    assert frozen.sha256 == sampler.sha256(KEY, TASKS)
    assert same_batches(frozen.batch(0, TASKS), sampler.sample(KEY, TASKS))
    assert same_batches(frozen.batch(1, 3), sampler.sample(KEY, 2, first=1))


def test_what_was_just_drawn_is_what_is_read_later(sampler, path, tmp_path):
    drawn = freeze(tmp_path / "other.jsonl", sampler, KEY, TASKS)
    assert (tmp_path / "other.jsonl").read_bytes() == path.read_bytes()
    assert same_batches(drawn.batch(0, TASKS), thaw(path, sampler, TASKS).batch(0, TASKS))


def test_rotated_classes_come_back_turned(toy, tmp_path):
    sampler = EpisodeSampler(toy, "train", 6, 1, 2)
    frozen = freeze(tmp_path / "turned.jsonl", sampler, KEY, 2)
    assert 11 in frozen.plan.classes, "the turned class is in both tasks"
    assert same_batches(frozen.batch(0, 2), sampler.sample(KEY, 2))


def test_a_file_that_is_there_is_read_and_nothing_drawn(sampler, path, monkeypatch):
    def drawn(*_: object) -> None:
        raise AssertionError("drew episodes although there were some")

    monkeypatch.setattr(EpisodeSampler, "plan", drawn)
    before = path.stat().st_mtime_ns
    frozen = freeze(path, sampler, Key(("another", "key")), TASKS)
    assert frozen.sha256 == json.loads(path.read_text().splitlines()[0])["sha256"]
    assert path.stat().st_mtime_ns == before


def test_the_file_holds_no_pixels_and_says_whose_episodes_it_has(sampler, path):
    header, *tasks = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {
        "format": "metadarts.episodes",
        "version": 1,
        "source": "toy",
        "content_sha256": sampler.source.content_sha256,
        "split": "test",
        "ways": WAYS,
        "shots": SHOTS,
        "queries": QUERIES,
        "tasks": TASKS,
        "sha256": sampler.sha256(KEY, TASKS),
    }
    assert [sorted(task) for task in tasks] == [["classes", "query", "support"]] * TASKS


def another_row(lines: list[Line]) -> None:
    """A support image becomes another one of the same class that the task does not have."""
    task = lines[1]
    number, used = task["classes"][0], {*task["support"][0], *task["query"][0]}
    task["support"][0][0] = next(row for row in range(24 * number, 24 * number + 24) if row not in used)


def another_class(lines: list[Line]) -> None:
    """A whole class of the test split takes another's place."""
    task = lines[1]
    number = next(number for number in (7, 8, 9, 10) if number not in task["classes"])
    rows = list(range(24 * number, 24 * number + 24))
    task["classes"][0], task["support"][0], task["query"][0] = number, rows[:SHOTS], rows[SHOTS : SHOTS + QUERIES]


def swap_tasks(lines: list[Line]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def swap_ways(lines: list[Line]) -> None:
    for name in ("classes", "support", "query"):
        lines[1][name][0], lines[1][name][1] = lines[1][name][1], lines[1][name][0]


def support_as_query(lines: list[Line]) -> None:
    lines[1]["query"][0][0] = lines[1]["support"][0][0]


def image_of_another_class(lines: list[Line]) -> None:
    lines[1]["query"][0][0] = lines[1]["query"][1][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_row, "was changed: its episodes hash to"),
        (another_class, "was changed: its episodes hash to"),
        (swap_tasks, "was changed: its episodes hash to"),
        (swap_ways, "was changed: its episodes hash to"),
        (lambda lines: lines[0].update(sha256="0" * 64), "its first line says 000000000000"),
        (lambda lines: lines.pop(2), r"was changed: expected arrays of the shapes \[\(4, 3\)"),
        (lambda lines: lines.append(lines[1]), r"was changed: expected arrays .*found \[\(5, 3\)"),
        (lambda lines: lines.extend([lines[1]] * 3), r"was changed: expected arrays .*found \[\(5, 3\)"),
        (lambda lines: lines[1]["classes"].__setitem__(0, 0), "names a class that split 'test' does not have"),
        (lambda lines: lines[1]["classes"].__setitem__(0, -1), "names a class that split 'test' does not have"),
        (lambda lines: lines[1]["classes"].__setitem__(0, 10**6), "names a class that split 'test' does not have"),
        (support_as_query, "task 0 has an image twice or of another class"),
        (image_of_another_class, "task 0 has an image twice or of another class"),
        (lambda lines: lines[1]["support"][0].__setitem__(0, -1), "task 0 has an image twice or of another class"),
        (lambda lines: lines[1]["support"][0].__setitem__(0, 10**9), "task 0 has an image twice or of another class"),
        (lambda lines: lines[1]["support"][0].pop(), "inhomogeneous"),
        (lambda lines: [line["support"][0].pop() for line in lines[1:]], "inhomogeneous"),
        (lambda lines: [way.pop() for line in lines[1:] for way in line["support"]], "was changed: expected arrays"),
        (lambda lines: lines[1]["support"].pop(), "inhomogeneous"),
        (lambda lines: lines[1].pop("query"), "line 2: query: expected a value, got none"),
        (lambda lines: lines[0].pop("ways"), "line 1: ways: expected a value, got none"),
        (lambda lines: lines[0].update(source="x" * 500), "holds other episodes: source is 'x{80}', expected 'toy'"),
        (lambda lines: lines[0].update(content_sha256="0" * 64), "holds other episodes: content_sha256"),
        (lambda lines: lines.clear(), "line 1: expected JSON"),
        (lambda lines: lines.__delitem__(slice(1, None)), "was changed: expected arrays"),
    ],
)  # fmt: skip
def test_an_edited_file_is_refused(edit, path, sampler, change, words):
    edit(change)
    with pytest.raises(DataError, match=words) as refused:
        thaw(path, sampler, TASKS)
    assert str(path) in str(refused.value), "it says which file"
    assert "\n" not in str(refused.value)


def test_true_is_no_number(toy, tmp_path):
    """JSON's true equals 1 in Python: in place of class 1 it would pass every check of values."""
    sampler, path = EpisodeSampler(toy, "train", 6, 1, 2), tmp_path / "episodes.jsonl"
    freeze(path, sampler, KEY, 1)
    header, task = path.read_text().splitlines()
    lines = json.loads(task)
    lines["classes"] = [True if number == 1 else number for number in lines["classes"]]
    assert True in [number for number in lines["classes"] if isinstance(number, bool)]
    path.write_text(f"{header}\n{json.dumps(lines)}\n")
    with pytest.raises(DataError, match=r"classes\[\d\]: expected int, got True"):
        thaw(path, sampler, 1)


def test_a_line_beyond_the_longest_is_refused(path, sampler):
    """What any other line of the file may not be is in tests/store."""
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-1] + f', "more": "{"x" * 1_100_000}"}}'
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 2: expected at most 1000000 bytes"):
        thaw(path, sampler, TASKS)


def test_a_missing_file_or_a_folder_in_its_place_is_refused(sampler, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        thaw(tmp_path / "none.jsonl", sampler, TASKS)
    with pytest.raises(DataError, match="expected a file, got a folder"):
        freeze(tmp_path, sampler, KEY, TASKS)


def test_a_place_that_cannot_be_written_is_an_error_of_ours(sampler, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((RunError, DataError)):
        freeze(tmp_path / "file" / "episodes.jsonl", sampler, KEY, TASKS)


def test_other_numbers_or_another_source_are_refused(path, sampler, toy):
    for change, words in (
        ({"shots": SHOTS + 1}, "shots is '2', expected '3'"),
        ({"queries": QUERIES + 1}, "queries is '3', expected '4'"),
        ({"ways": WAYS + 1}, "ways is '3', expected '4'"),
        ({"split": "train"}, "split is 'test', expected 'train'"),
    ):
        with pytest.raises(DataError, match=f"holds other episodes: {words}"):
            thaw(path, replace(sampler, **change), TASKS)
    with pytest.raises(DataError, match="holds other episodes: tasks is '4', expected '3'"):
        thaw(path, sampler, TASKS - 1)
    with pytest.raises(DataError, match="holds other episodes: tasks is '4', expected '5'"):
        thaw(path, sampler, TASKS + 1)
    images = toy.images.copy()
    images[0, 0, 0, 0] ^= 1  # of a training class: other data all the same
    with pytest.raises(DataError, match="holds other episodes: content_sha256"):
        thaw(path, replace(sampler, source=replace(toy, images=images)), TASKS)


def test_a_hash_made_to_match_lets_no_training_class_in(edit, path, sampler):
    """Whoever edits the first line too still meets the source: the classes must be of the split."""

    def forged(lines: list[Line]) -> None:
        rows = list(range(24))  # of class 0, which is for training
        lines[1]["classes"][0], lines[1]["support"][0] = 0, rows[:SHOTS]
        lines[1]["query"][0] = rows[SHOTS : SHOTS + QUERIES]
        arrays = [np.array([line[name] for line in lines[1:]]) for name in ("classes", "support", "query")]
        lines[0]["sha256"] = episodes_sha256(EpisodePlan(*arrays), sampler.source)

    edit(forged)
    with pytest.raises(DataError, match="names a class that split 'test' does not have"):
        thaw(path, sampler, TASKS)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_broken_text_is_a_data_error_or_the_same_episodes(sampler, tmp_path_factory, data):
    """Bytes cut out or replaced anywhere: refused, or (a blank, a field too many) no change of any episode."""
    path = tmp_path_factory.mktemp("broken") / "episodes.jsonl"
    frozen = freeze(path, sampler, KEY, 2)
    text = path.read_bytes()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    path.write_bytes(text[:start] + data.draw(st.binary(max_size=8) | st.sampled_from(DIGITS)) + text[end:])
    found = None
    with suppress(DataError):
        found = thaw(path, sampler, 2)
    if found is not None:
        assert found.sha256 == frozen.sha256
        assert same_batches(found.batch(0, 2), frozen.batch(0, 2))


DIGITS = [b"0", b"1", b"-", b" ", b"1e5", b"true", b"[", b"]", b"null", b"{}", b'"', b",", b"\n"]
