"""Episodes are pure in their key, and support and query never share an image, nor a variety where that can be."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, episodes_sha256
from metadarts.tasks.sampler import PADDING, split_by_variety

KEY = Key.from_seed(3)


@pytest.fixture(params=[1, 5, (1, 5)], ids=["1 shot", "5 shots", "1 to 5 shots"])
def sampler(request, toy) -> EpisodeSampler:
    return EpisodeSampler(toy, "train", ways=4, shots=request.param, queries=7)


def same(left, right):
    pairs = [(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)]
    return all(torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other for one, other in pairs)


def test_shapes_and_types(sampler):
    batch = sampler.sample(KEY, 3)
    most = 1 if sampler.shots == 1 else 5
    assert batch.support_images.shape == (3, 4 * most, 2, 6, 6)
    assert batch.query_images.shape == (3, 28, 2, 6, 6)
    assert batch.support_labels.shape == batch.support_mask.shape == (3, 4 * most)
    assert batch.query_labels.shape == batch.query_mask.shape == (3, 28)
    assert batch.support_images.dtype == torch.float32
    assert batch.support_labels.dtype == torch.int64
    assert batch.support_mask.dtype == torch.bool
    assert batch.ways == 4
    assert 0 <= batch.query_images.min() <= batch.query_images.max() <= 1


def test_pure_in_its_key(sampler):
    assert same(sampler.sample(KEY, 3), sampler.sample(KEY, 3))
    assert not same(sampler.sample(KEY, 3), sampler.sample(Key.from_seed(4), 3))


def test_global_random_state_is_neither_read_nor_moved(sampler):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sampler.sample(KEY, 2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert same(first, sampler.sample(KEY, 2))


def test_shorter_batch_is_the_start_of_a_longer_one(sampler):
    long = sampler.sample(KEY, 6)
    for count in (1, 2, 5):
        assert same(sampler.sample(KEY, count), long.slice(0, count))


def test_plan_then_load_is_sample(sampler):
    assert same(sampler.load(sampler.plan(KEY, 3)), sampler.sample(KEY, 3))


def test_known_episodes(toy):
    """A change of the choosing is a change of every published number: they may change only with a version."""
    plan = EpisodeSampler(toy, "test", 3, (1, 2), 2).plan(Key.from_seed(0), 2)
    assert plan.tasks == 2
    assert plan.classes.tolist() == KNOWN_CLASSES
    assert plan.support_rows.tolist() == KNOWN_SUPPORT


KNOWN_CLASSES = [[10, 7, 8], [8, 9, 10]]
KNOWN_SUPPORT = [[[242, -1], [176, 172], [207, -1]], [[214, -1], [226, -1], [241, -1]]]


def with_turns(source):
    entries = enumerate(source.classes)
    return replace(source, classes=tuple(replace(entry, quarter_turns=number % 4) for number, entry in entries))


def oblong(source):
    """6 x 5 pixels: they can be turned upside down only."""
    entries = enumerate(source.classes)
    half = tuple(replace(entry, quarter_turns=2 * (number % 2)) for number, entry in entries)
    return replace(source, images=np.ascontiguousarray(source.images[..., :5]), classes=half)


SCALES = {"mean": (0.25, 0.4), "std": (0.3, 1.7)}
KNOWN_BATCHES = [
    (lambda toy, _: toy, 5, "e4f6b348e93c9503d045d85e782b0f3ee0a7a8c893de4600f0ebdc38072dfd27"),
    (lambda toy, _: with_turns(toy), (1, 5), "f671e552c0baba23fcadb8e4e95ad0d68136430d1d77818aa846576e4eac5f43"),
    (
        lambda toy, _: replace(with_turns(toy), **SCALES),
        (1, 5),
        "661f0e41af90b8f72df7bfeac07952e909c938fb93dd72511b86e3264e9ffcae",
    ),
    (
        lambda toy, _: replace(oblong(toy), **SCALES),
        (1, 3),
        "75eed8cc3c7564709451c9db9db1f1918a183fb435bf4384303a2497eb263042",
    ),
    (
        lambda _, built_in: with_turns(built_in),
        1,
        "465aafcdbf9c8f2c7cf945b033884fdc2c6d5677109ebb85f120bf214f7c646f",
    ),
]


@pytest.mark.parametrize(
    ("of", "shots", "expected"), KNOWN_BATCHES, ids=["plain", "turned", "normalised", "oblong", "glyphs turned"]
)
def test_known_batches(toy, built_in, of, shots, expected):
    """The bits of images, labels and masks, as they were before reading and finishing were two things."""
    batch = EpisodeSampler(of(toy, built_in), "train", 5, shots, 7).sample(KEY, 4)
    digest = hashlib.sha256()
    for tensor in batch.tensors():
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode() + tensor.contiguous().numpy().tobytes())
    assert digest.hexdigest() == expected


def test_classes_of_a_task_are_distinct_and_of_the_split(sampler, toy):
    plan = sampler.plan(KEY, 50)
    for classes in plan.classes:
        assert len(set(classes)) == 4
        assert set(classes) <= set(toy.split["train"])
    assert set(plan.classes.ravel()) == set(toy.split["train"])


def test_every_row_shows_its_class(sampler, toy):
    plan = sampler.plan(KEY, 10)
    for task, way in np.ndindex(plan.classes.shape):
        own = set(toy.classes[plan.classes[task, way]].rows.tolist()) | {PADDING}
        assert set(plan.support_rows[task, way].tolist()) <= own
        assert set(plan.query_rows[task, way].tolist()) <= own - {PADDING}


@pytest.mark.parametrize("variety", [True, False], ids=["varieties", "no varieties"])
def test_support_and_query_share_no_image(toy, variety):
    source = toy if variety else replace(toy, variety=None)
    plan = EpisodeSampler(source, "test", 4, (1, 9), 15).plan(KEY, 30)
    for support, query in zip(plan.support_rows.reshape(-1, 9), plan.query_rows.reshape(-1, 15), strict=True):
        chosen = support[support != PADDING].tolist() + query.tolist()
        assert len(set(chosen)) == len(chosen)


def test_support_and_query_come_from_different_varieties(toy):
    plan = EpisodeSampler(toy, "train", 4, (1, 9), 12).plan(KEY, 30)
    for support, query in zip(plan.support_rows.reshape(-1, 9), plan.query_rows.reshape(-1, 12), strict=True):
        assert not set(toy.variety[support[support != PADDING]]) & set(toy.variety[query])


def test_falls_back_to_distinct_images_where_varieties_do_not_suffice(toy):
    plan = EpisodeSampler(toy, "train", 4, 7, 17).plan(KEY, 5)
    for support, query in zip(plan.support_rows.reshape(-1, 7), plan.query_rows.reshape(-1, 17), strict=True):
        assert len(set(support) | set(query)) == 24


@pytest.mark.parametrize(
    ("kinds", "shots", "queries", "apart"),
    [
        ([0, 0, 0, 0], 1, 3, False),
        ([0, 1, 1, 1], 1, 3, True),
        ([1, 1, 1, 0], 1, 3, True),  # random order would give the large variety to the support; smallest first works
        ([0, 1, 1, 1, 1, 1, 2], 5, 2, True),  # only largest first works
        ([0, 0, 1, 1], 3, 1, False),
        ([0, 1, 2, 3], 2, 2, True),
    ],
)
def test_variety_rule(kinds, shots, queries, apart):
    rows = np.arange(10, 10 + len(kinds))
    support, query = split_by_variety(rows, np.array(kinds), shots, queries)
    assert (len(support), len(query)) == (shots, queries)
    assert not set(support) & set(query)
    of = dict(zip(rows.tolist(), kinds, strict=True))
    assert ({of[row] for row in support.tolist()}.isdisjoint({of[row] for row in query.tolist()})) == apart


def test_masks_and_labels_count_the_shots(toy):
    sampler = EpisodeSampler(toy, "train", 4, (1, 5), 7)
    batch, plan = sampler.sample(KEY, 40), sampler.plan(KEY, 40)
    counts = (plan.support_rows != PADDING).sum(2)
    assert set(counts.ravel().tolist()) == {1, 2, 3, 4, 5}
    for task in range(40):
        labels = batch.support_labels[task][batch.support_mask[task]].tolist()
        assert Counter(labels) == Counter({way: int(count) for way, count in enumerate(counts[task])})
        assert Counter(batch.query_labels[task].tolist()) == Counter(dict.fromkeys(range(4), 7))
    assert batch.query_mask.all()
    assert not batch.support_images[~batch.support_mask].any()
    assert not batch.support_labels[~batch.support_mask].any()


def test_images_are_the_rows_turned(toy):
    sampler = EpisodeSampler(toy, "train", 6, 2, 3)
    batch, plan = sampler.sample(KEY, 4), sampler.plan(KEY, 4)
    for task, way, shot in np.ndindex(4, 6, 3):
        turns = toy.classes[plan.classes[task, way]].quarter_turns
        pixels = np.rot90(toy.images[plan.query_rows[task, way, shot]], turns, axes=(1, 2)) / 255
        read = batch.query_images[task, way * 3 + shot].numpy()
        np.testing.assert_allclose(read, pixels, rtol=0, atol=1e-7)
        assert batch.query_labels[task, way * 3 + shot] == way


def test_normalises_where_the_source_has_a_mean(toy):
    mean, std = (0.25, 0.5), (0.5, 2.0)
    plain = EpisodeSampler(toy, "train", 3, (1, 3), 2).sample(KEY, 3)
    scaled = EpisodeSampler(replace(toy, mean=mean, std=std), "train", 3, (1, 3), 2).sample(KEY, 3)
    expected = (plain.query_images - torch.tensor(mean).view(2, 1, 1)) / torch.tensor(std).view(2, 1, 1)
    torch.testing.assert_close(scaled.query_images, expected)
    assert not scaled.support_images[~scaled.support_mask].any()


def test_digest_names_the_episodes(toy, sampler):
    digest = episodes_sha256(sampler.plan(KEY, 3), toy)
    assert digest == episodes_sha256(sampler.plan(KEY, 3), replace(toy))
    assert digest != episodes_sha256(sampler.plan(KEY, 2), toy)
    assert digest != episodes_sha256(sampler.plan(Key.from_seed(4), 3), toy)
    assert digest != episodes_sha256(sampler.plan(KEY, 3), replace(toy, variety=None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 5}, "toy, split 'val': 5-way tasks need as many classes, it has 2; lower ways"),
        ({"shots": 20}, "class 'class 5' has 24 images, but 20 shots and 5 queries need 25; lower shots or queries"),
        ({"shots": (1, 20)}, "20 shots and 5 queries need 25"),
        ({"shots": 0}, "shots must be at least 1, given 0"),
        ({"shots": (0, 2)}, "shots must be at least 1, given 0"),
        ({"shots": (3, 2)}, r"low <= high, given \(3, 2\)"),
        ({"queries": 0}, "queries must be at least 1, given 0"),
        ({"ways": 0}, "ways must be at least 1, given 0"),
        ({"split": "validation"}, "unknown split 'validation'"),
    ],
)
def test_refuses_on_construction(toy, arguments, message):
    with pytest.raises(DataError, match=message):
        EpisodeSampler(toy, **{"split": "val", "ways": 2, "shots": 1, "queries": 5, **arguments})


def test_refuses_no_tasks(sampler):
    with pytest.raises(DataError, match="tasks must be at least 1, given 0"):
        sampler.plan(KEY, 0)
