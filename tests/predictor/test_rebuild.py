"""Episodes of an archive are built again from their rows: the very tensors, or a refusal that says why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.predictor.rebuild import episode_origins, read_episode, rebuild
from metadarts.predictor.task_record import EPISODE, TEACHER, Origin
from metadarts.tasks import ClassEntry, EpisodeSampler, Source

KEY = Key(("tests", "rebuild"))


def made_source(**changes):
    images = KEY.child("images").numpy().integers(0, 256, (60, 1, 8, 8)).astype(np.uint8)
    classes = tuple(ClassEntry(f"class {n}", np.arange(10 * n, 10 * n + 10), quarter_turns=n % 2) for n in range(6))
    fields = {"name": "made", "images": images, "classes": classes, "split": {"train": (0, 1, 2, 3), "test": (4, 5)}}
    return Source(**(fields | changes))


@pytest.fixture(scope="module")
def source():
    return made_source()


@pytest.fixture(scope="module")
def sampler(source):
    return EpisodeSampler(source, "train", 3, 2, 4)


@pytest.fixture(scope="module")
def origins(sampler):
    return episode_origins(sampler, sampler.plan(KEY, 5))


def changed(origin, **facts):
    return Origin(origin.kind, dict(origin.facts) | facts)


def test_the_tasks_are_those_that_were_drawn(source, sampler, origins):
    expected = sampler.sample(KEY, 5)
    for chosen in (range(5), (3, 0)):
        found = rebuild([origins[number] for number in chosen], source)
        for own, other in zip(found.tensors(), expected.tensors(), strict=True):
            assert torch.equal(own, other[list(chosen)])
        assert found.ways == 3


def test_an_origin_may_have_been_json(source, origins):
    told = json.loads(origins[0].to_json())
    again = Origin(told["kind"], told["facts"])
    assert again.sha256 == origins[0].sha256
    assert torch.equal(rebuild([again], source).query_images, rebuild(origins[:1], source).query_images)


def test_classes_of_fewer_shots_come_back_with_their_mask(source):
    ragged = EpisodeSampler(source, "train", 3, (1, 4), 4)
    found = rebuild(episode_origins(ragged, ragged.plan(KEY, 3)), source)
    expected = ragged.sample(KEY, 3)
    assert expected.ragged
    assert all(torch.equal(own, other) for own, other in zip(found.tensors(), expected.tensors(), strict=True))


def test_tasks_of_two_splits_may_be_in_one_batch(source, origins):
    tests = EpisodeSampler(source, "test", 2, 2, 4)
    pairs = EpisodeSampler(source, "train", 2, 2, 4)
    mixed = [*episode_origins(pairs, pairs.plan(KEY, 1)), *episode_origins(tests, tests.plan(KEY, 1))]
    assert torch.equal(rebuild(mixed, source).support_images[1], tests.sample(KEY, 1).support_images[0])


def test_other_data_are_refused(source, origins):
    other = replace(source, name="other")
    with pytest.raises(DataError, match="task is of 'made', the data given are 'other': open made"):
        rebuild(origins, other)
    images = source.images.copy()
    images[59, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match="open the data it was recorded on"):
        rebuild(origins, made_source(images=images))


def test_what_was_changed_is_refused(source, origins):
    first = origins[0]
    support = [list(row) for row in first.facts["support"]]
    wrong = {
        "no class 5": changed(first, classes=[*first.facts["classes"][:2], 5]),
        "twice, or one that is not of it": changed(first, support=[[row[0], row[0]] for row in support]),
        "one that is not of it": changed(first, support=support[::-1]),
        "unknown split": changed(first, split="tset"),
        r"support\[0\]\[0\]: expected int, got True": changed(first, support=[[True, 2]] * 3),
        r"query\[0\]\[0\]: expected int >= 0": changed(first, query=[[-1, 2]] * 3),
        "classes: expected array of length >= 1": changed(first, classes=[]),
        "distinct classes": changed(first, classes=[0, 0, 1]),
        "lists of support": changed(first, support=support[:2]),
        "split: expected str, got 3": changed(first, split=3),
        "an episode's facts: more: expected no such field": changed(first, more=1),
    }
    for message, origin in wrong.items():
        with pytest.raises(DataError, match=message):
            rebuild([origin], source)


def test_other_kinds_other_sizes_and_nothing_are_refused(source, sampler, origins):
    with pytest.raises(DataError, match=f"origin of an {EPISODE}, got one of kind '{TEACHER}'"):
        read_episode(Origin(TEACHER, {}))
    with pytest.raises(DataError, match="at least one origin"):
        rebuild([], source)
    other = EpisodeSampler(source, "train", 3, 1, 4)
    with pytest.raises(DataError, match=r"\(3, 1, 4\), \(3, 2, 4\)\]: give those of one size"):
        rebuild([*origins, *episode_origins(other, other.plan(KEY, 1))], source)
