"""The family whose right operation is known: tasks from their numbers, students, records, warm starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.predictor.synthetic import (
    OPERATIONS,
    Family,
    Schedule,
    SyntheticTasks,
    rebuild,
    records_of,
    synthetic_tasks,
    taught,
    train_each,
    warm_start,
)
from metadarts.predictor.synthetic.edge import fresh, output, pooled, standardised
from metadarts.predictor.synthetic.family import APART, _two_taps
from metadarts.predictor.synthetic.records import best_of
from metadarts.predictor.synthetic.students import Trained
from metadarts.predictor.synthetic.warm import INNER
from metadarts.predictor.task_record import EPISODE, TRAINED, Origin

SMALL = Family(support=32, query=64)
SPACE = SMALL.space
INNER_3 = replace(INNER, steps=3)
EASY = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
"""Operations without parameters, which need few images to be told apart."""


def some(count: int = 6, family: Family = SMALL) -> SyntheticTasks:
    return synthetic_tasks(3, 0, count, family)


def test_the_space_is_one_edge_with_operations_of_darts():
    assert SPACE.alpha_shape == (1, 6)
    assert SPACE.cell_count() == 6
    assert SPACE.operations == OPERATIONS


def test_a_task_depends_on_its_number_alone():
    tasks, later = some(), synthetic_tasks(3, 4, 2, SMALL)
    for ours, theirs in zip(tasks.batch.slice(4, 6).tensors(), later.batch.tensors(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(tasks.truth[4:6], later.truth)
    assert not torch.equal(tasks.batch.support_images[0], tasks.batch.support_images[1])
    assert not torch.equal(tasks.batch.support_images, synthetic_tasks(4, 0, 6, SMALL).batch.support_images)


def test_images_have_no_mean_that_could_tell_and_classes_are_of_one_size():
    batch = some().batch
    images = torch.cat([batch.support_images, batch.query_images], dim=1)
    labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)
    assert images.shape == (6, 96, 2, 10, 10)
    assert images.mean((3, 4)).abs().max() < 1e-5
    assert (images.std((3, 4)) - 1).abs().max() < 1e-5
    assert ((labels.sum(1) - 48).abs() <= 8).all()


def test_every_operation_is_drawn():
    drawn = synthetic_tasks(0, 0, 60, replace(SMALL, support=2, query=2)).truth
    assert set(drawn.tolist()) == set(range(len(OPERATIONS)))


def test_labels_are_the_teachers():
    """The identity's teacher ranks images by one channel's average of relu, which nothing else knows."""
    tasks = synthetic_tasks(0, 0, 30, SMALL)
    chosen = [i for i, op in enumerate(tasks.truth.tolist()) if OPERATIONS[op] == "skip_connect"]
    assert chosen
    for task in chosen:
        images, labels = tasks.batch.query_images[task], tasks.batch.query_labels[task].bool()
        scores = F.relu(images).mean((2, 3))
        apart = [
            max(score[labels].min() - score[~labels].max(), score[~labels].min() - score[labels].max())
            for score in scores.T
        ]
        assert max(apart) > 0


def test_origins_give_the_tasks_again():
    tasks = some()
    again = rebuild([tasks.origins[4], tasks.origins[1]])
    for ours, theirs in zip(again.tensors(), tasks.batch.tensors(), strict=True):
        assert torch.equal(ours[0], theirs[4])
        assert torch.equal(ours[1], theirs[1])


def test_other_origins_are_refused():
    good = some(1).origins[0]
    facts = dict(good.facts)
    other = Origin(good.kind, facts | {"family": facts["family"] | {"support": 30}})
    bad = {
        "kind": [Origin(EPISODE, facts)],
        "fact": [Origin(good.kind, facts | {"more": 1})],
        "missing": [Origin(good.kind, {"seed": 1})],
        "text": [Origin(good.kind, facts | {"number": "1"})],
        "range": [Origin(good.kind, facts | {"family": facts["family"] | {"kept": 2.0}})],
        "families": [good, other],
        "none": [],
    }
    for origins in bad.values():
        with pytest.raises(DataError, match="expected"):
            rebuild(origins)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"kept: expected a share.*even number"):
        Family(kept=0.0, support=3)
    with pytest.raises(ConfigError, match="schedule"):
        Schedule(starts=0)
    with pytest.raises(ConfigError, match="at least one task"):
        synthetic_tasks(0, 0, 0)


@pytest.mark.parametrize("kernel", APART)
def test_a_teachers_filter_needs_its_kernel(kernel):
    for taps in _two_taps(40, kernel, Key.from_seed(0).torch()):
        places = taps.nonzero()
        assert len(places) == 2
        assert (places[0] - places[1]).abs().max() >= APART[kernel]


def test_operations_are_named_by_training_each_alone():
    """Of few images, operations without parameters: the others need more, see benchmarks/one_edge.py."""
    tasks = synthetic_tasks(0, 0, 12, replace(SMALL, support=64, query=128, operations=EASY))
    assert len(set(tasks.truth.tolist())) == 3
    trained = train_each(tasks, Key.from_seed(1), Schedule(steps=60))
    assert torch.equal(trained.best, tasks.truth)
    assert trained.accuracies.gather(1, tasks.truth.unsqueeze(1)).min() > 0.9
    assert trained.before.mean() < 0.65


def test_a_student_learns_its_teachers_convolution():
    tasks = synthetic_tasks(0, 0, 2, replace(SMALL, support=256, query=256, operations=("dil_conv_3x3",)))
    trained = train_each(tasks, Key.from_seed(1), Schedule(steps=40))
    assert trained.accuracies.min() > 0.9
    assert (trained.accuracies > trained.before + 0.2).all()


def test_tasks_trained_at_once_do_not_interact():
    tasks = some(3)
    together, again = (train_each(tasks, Key.from_seed(1), Schedule(1, 0, 5, at_once=3)) for _ in range(2))
    changed = tasks.batch.support_labels.clone()
    changed[1:] = 1 - changed[1:]
    other = replace(tasks, batch=replace(tasks.batch, support_labels=changed))
    found = train_each(other, Key.from_seed(1), Schedule(1, 0, 5, at_once=3))
    assert torch.equal(together.losses, again.losses)
    assert torch.allclose(found.losses[0], together.losses[0], atol=1e-5)
    assert not torch.allclose(found.losses[1], together.losses[1], atol=1e-2)


def test_the_best_is_told_by_accuracy_then_by_loss():
    accuracies = torch.tensor([[0.5, 0.9, 0.9], [0.7, 0.6, 0.1]])
    losses = torch.tensor([[0.0, 0.4, 0.3], [2.0, 1.0, 0.5]])
    assert Trained(accuracies, accuracies, losses, losses).best.tolist() == [2, 0]


def test_noise_turns_support_labels_round_and_leaves_the_rest():
    clean, noisy = (synthetic_tasks(0, 0, 20, replace(SMALL, noise=noise)).batch for noise in (0.0, 0.2))
    turned = clean.support_labels != noisy.support_labels
    assert 0.1 < turned.float().mean() < 0.3
    assert torch.equal(clean.query_labels, noisy.query_labels)
    assert torch.equal(clean.support_images, noisy.support_images)


def test_a_family_names_its_operations():
    family = replace(SMALL, operations=("skip_connect", "sep_conv_5x5"), support=2, query=2)
    tasks = synthetic_tasks(0, 0, 8, family)
    assert set(tasks.truth.tolist()) == {0, 1}
    assert tasks.family.space.operations == family.operations
    with pytest.raises(ConfigError, match="did you mean 'sep_conv_5x5'"):
        replace(SMALL, operations=("sep_conv5x5",))


def test_what_is_taught_is_the_truth():
    tasks = some(4)
    for record, op in zip(taught(tasks), tasks.truth.tolist(), strict=True):
        record.genotype.validate(SPACE)
        assert record.genotype.normal == ((OPERATIONS[op], 0),)
        assert record.after == 1.0


def test_records_say_all_but_the_truth():
    tasks = some(2)
    trained = train_each(tasks, Key.from_seed(1), Schedule(1, 0, 2))
    records = records_of(tasks, trained, 1)
    assert len(records) == 2 * len(OPERATIONS)
    for number, record in enumerate(records):
        task, column = divmod(number, len(OPERATIONS))
        record.genotype.validate(SPACE)
        assert record.genotype.normal == ((OPERATIONS[column], 0),)
        assert derive_genotype({cell: torch.tensor(a) for cell, a in record.alphas.items()}, SPACE) == record.genotype
        assert record.after == float(trained.accuracies[task, column])
        assert (record.role, record.origin) == (TRAINED, tasks.origins[task])
        assert "truth" not in record.origin.to_json()
        assert set(record.origin.facts) == {"seed", "number", "family"}
    best = best_of(records)
    expected = {tasks.origins[t].sha256: OPERATIONS[int(trained.accuracies[t].argmax())] for t in range(2)}
    assert best == expected


def test_a_warm_start_at_the_truth_is_ahead():
    tasks = synthetic_tasks(5, 0, 8, replace(SMALL, support=64, query=256))
    flat = warm_start(tasks, torch.zeros(6), Key.from_seed(2))
    told = warm_start(tasks, 5.0 * torch.eye(6)[tasks.truth], Key.from_seed(2))
    assert flat.shape == told.shape == (11, 8)
    assert (told[-1] - flat[-1]).mean() > 0.05
    assert torch.equal(flat[[0, 3]], warm_start(tasks, torch.zeros(8, 6), Key.from_seed(2), INNER_3, measured=(0, 3)))


def test_a_mixture_of_one_is_that_operation():
    from metadarts.predictor.synthetic.warm import ALPHAS, _logits, _start

    batch = some(2).batch
    params = _start(batch, torch.zeros(2, 6), Key.from_seed(2), OPERATIONS)
    for column, operation in enumerate(OPERATIONS):
        params[ALPHAS] = torch.full((2, 1, 6), -1e4)
        params[ALPHAS][..., column] = 0.0
        images = batch.support_images.permute(0, 1, 3, 4, 2).contiguous()
        own = {name.split(".", 1)[1]: t for name, t in params.items() if name.startswith(f"{operation}.")}
        features = standardised(pooled(output(operation, own, images)))
        expected = features @ params["head.weight"] + params["head.bias"]
        assert torch.allclose(_logits(params, images, OPERATIONS), expected, atol=1e-5)


def test_fresh_weights_are_fixed_by_their_key():
    ours, again = (fresh("sep_conv_3x3", 2, 3, Key.from_seed(0)) for _ in range(2))
    other = fresh("sep_conv_3x3", 2, 3, Key.from_seed(1))
    assert ours["depthwise1"].shape == (3, 1, 2, 3, 3)
    assert all(torch.equal(ours[name], again[name]) and not torch.equal(ours[name], other[name]) for name in ours)
