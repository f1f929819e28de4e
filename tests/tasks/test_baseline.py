"""The nearest class mean: right by hand on a few numbers, and blind to padding."""

from __future__ import annotations

import torch

from metadarts.core.types import TaskBatch
from metadarts.tasks import nearest_class_mean


def batch_of(support, support_labels, support_mask, query, query_labels, query_mask, ways=2):
    def images(values):
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)

    return TaskBatch(
        images(support),
        torch.tensor([support_labels]),
        torch.tensor([support_mask]),
        images(query),
        torch.tensor([query_labels]),
        torch.tensor([query_mask]),
        ways,
    )


def test_by_hand():
    # means 1 and 5: the border is 3
    batch = batch_of([0, 2, 5], [0, 0, 1], [True] * 3, [2.9, 3.1, 2.0, 9.0], [0, 1, 1, 1], [True] * 4)
    assert nearest_class_mean(batch).tolist() == [0.75]


def test_padding_counts_nowhere():
    # with the padding row the mean of class 0 would be 50, and the last query would be wrong
    batch = batch_of([0, 100, 5], [0, 0, 1], [True, False, True], [1.0, 6.0, 1.0], [0, 1, 1], [True, True, False])
    assert nearest_class_mean(batch).tolist() == [1.0]


def test_class_without_support_is_never_chosen():
    batch = batch_of([3.0], [1], [True], [0.0, 3.0], [1, 1], [True, True])
    assert nearest_class_mean(batch).tolist() == [1.0]


def test_tasks_at_once_are_tasks_one_by_one(toy):
    from metadarts.core.rng import Key
    from metadarts.tasks import EpisodeSampler

    batch = EpisodeSampler(toy, "train", 3, (1, 3), 4).sample(Key.from_seed(1), 5)
    alone = torch.cat([nearest_class_mean(batch.task(task)) for task in range(5)])
    assert torch.equal(nearest_class_mean(batch), alone)
