"""Fixed mixing weights with a task axis: every task of a batch is mixed by its own table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import FINISHED, batched
from metadarts.inner import InnerLoop, adapt
from metadarts.networks import Learner
from metadarts.operations import OPERATIONS
from metadarts.testing import generic_params, random_tasks, tiny_learner

KEY = Key(("tests", "task weights"))
TASKS = 3
INNER = InnerLoop(steps=2, order="first", weight_rate=0.1)


@pytest.fixture(scope="module", params=["transductive", "support"])
def learner(request) -> Learner:
    return tiny_learner(bn=request.param)


def masks(learner: Learner, count: int) -> dict[str, torch.Tensor]:
    """[count, E, P] by cell, with exact zeros in other places for each."""
    found = {}
    for cell in learner.network.space.cell_types:
        generator = KEY.child(cell).torch()
        shape = (count, *learner.network.space.alpha_shape)
        table = torch.rand(shape, dtype=torch.float64, generator=generator)
        found[cell] = table * (torch.rand(shape, generator=generator) > 0.3)
    return found


def after_adapting(learner: Learner, params, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Query losses and logits of a batch of tasks."""
    with torch.no_grad():
        start = learner.start(batched(params, batch.tasks), batch)
        moved = adapt(learner.support_loss, start, batch, INNER).params
        return learner.query_loss(moved, batch, FINISHED)[0], learner.query_logits(moved, batch)


def test_each_task_of_a_batch_is_as_alone(learner):
    params, tasks = generic_params(learner, KEY), random_tasks(KEY, tasks=TASKS)
    tables = masks(learner, 2 * TASKS)
    batch = tasks.take(torch.arange(TASKS).repeat(2))
    losses, logits = after_adapting(replace(learner, weights=tables), params, batch)
    for place in range(2 * TASKS):
        own = {cell: table[place] for cell, table in tables.items()}
        loss, alone = after_adapting(replace(learner, weights=own), params, tasks.task(place % TASKS))
        torch.testing.assert_close(losses[place : place + 1], loss, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(logits[place : place + 1], alone, rtol=1e-9, atol=1e-11)
    assert losses.unique().numel() == 2 * TASKS, "the masks and the tasks make a difference"


def test_a_candidate_without_weight_in_any_task_is_not_run(learner):
    ran = []
    name = "sep_conv_5x5"

    def watched(state, context):
        ran.append(name)
        return OPERATIONS[name].run(state, context)

    operations = {**OPERATIONS, name: replace(OPERATIONS[name], run=watched)}
    network = replace(learner.network, operations=operations)
    params, batch = generic_params(learner, KEY), random_tasks(KEY, tasks=TASKS)
    tables = masks(learner, TASKS)
    column = network.space.primitives.index(name)
    for table in tables.values():
        table[..., column] = 0.0
    after_adapting(replace(learner, network=network, weights=tables), params, batch)
    assert ran == []
    tables["normal"][1, 0, column] = 0.5
    after_adapting(replace(learner, network=network, weights=tables), params, batch)
    assert ran, "one task needs it"


def test_tables_of_another_number_of_tasks_are_refused(learner):
    params, batch = generic_params(learner, KEY), random_tasks(KEY, tasks=TASKS)
    with pytest.raises(ConfigError, match="weights of normal are for 2 tasks, expected those of 3"):
        after_adapting(replace(learner, weights=masks(learner, 2)), params, batch)


def test_taken_tasks_are_those_asked_for():
    batch = random_tasks(KEY, tasks=TASKS)
    taken = batch.take(torch.tensor([2, 0, 2]))
    for place, task in enumerate((2, 0, 2)):
        assert torch.equal(taken.query_images[place], batch.query_images[task])
        assert torch.equal(taken.support_labels[place], batch.support_labels[task])
    assert (taken.tasks, taken.ways, taken.ragged) == (3, batch.ways, False)
