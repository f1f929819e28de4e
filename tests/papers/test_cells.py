"""Supernet and discrete cells on many tasks: each result is that of its task alone, with the task's own weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError, GenotypeError
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of, is_alpha
from metadarts.inner import adapt
from metadarts.networks import discrete_network, inherit
from metadarts.papers import cells
from metadarts.papers.cells import (
    adapt_batch,
    finite_tasks,
    genotypes_of,
    inherited_start,
    with_cells,
    with_choices,
    with_fixed_alphas,
)
from metadarts.spaces import darts, random_genotype
from metadarts.training import Config, build, discretised, evaluate_run, with_settings
from metadarts.training.build import held_out
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import evaluation_inner

TASKS = 3
TINY = {
    "tasks.ways": 3,
    "macro.channels": 4,
    "space.nodes": 2,
    "macro.stem": (4, 6),
    "inner.alpha_rate": 20.0,
    "training.meta_steps": 1,
    "evaluate.steps": 2,
    "evaluate.queries": 6,
    "evaluate.batch": TASKS,
}


@pytest.fixture(scope="module", params=["shared", "prototype"])
def experiment(request):
    return build(with_settings(Config(), TINY | {"model.head": request.param}).check())


@pytest.fixture(scope="module")
def checkpoint(experiment):
    return Checkpoint(experiment.fresh_state().params, {}, {"step": 0})


@pytest.fixture(scope="module")
def batch(experiment):
    return held_out(experiment, "test").batch(0, TASKS)


@pytest.fixture(scope="module")
def adapted(experiment, checkpoint, batch):
    return adapt_batch(experiment, checkpoint, batch)[0]


@pytest.fixture(scope="module")
def genotypes(adapted, experiment):
    return genotypes_of(adapted, experiment.network)


def test_the_supernet_is_measured_as_evaluate_measures_it(experiment, checkpoint, batch):
    params, accuracies = adapt_batch(experiment, checkpoint, batch)
    expected = evaluate_run(experiment, checkpoint, "test", TASKS).evaluation.accuracies
    assert torch.equal(accuracies, expected)
    assert all(len(tensor) == TASKS and not tensor.requires_grad for tensor in params.values())
    assert all(not torch.equal(params[name][0], checkpoint.params[name]) for name in params if is_alpha(name))


def test_learned_rates_are_the_checkpoints(experiment, checkpoint, batch, adapted):
    learned = {"rates.weights": torch.tensor(0.1).log(), "rates.alphas": torch.tensor(5.0).log()}
    config = with_settings(experiment.config, {"inner.learn_rates": True})
    params, _ = adapt_batch(replace(experiment, config=config), replace(checkpoint, log_rates=learned), batch)
    config = with_settings(experiment.config, {"inner.weight_rate": 0.1, "inner.alpha_rate": 5.0})
    same, _ = adapt_batch(replace(experiment, config=config), checkpoint, batch)
    for name, tensor in params.items():
        torch.testing.assert_close(tensor, same[name], rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(params[name], adapted[name]) for name in params if is_alpha(name))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_cells_result_is_that_of_its_task_alone(experiment, checkpoint, batch, adapted, genotypes, steps):
    experiment = replace(experiment, config=with_settings(experiment.config, {"evaluate.steps": steps}))
    shared = [genotypes[0]] * TASKS  # all in one pass
    for chosen in (shared, genotypes, [genotypes[1], genotypes[0], genotypes[0]]):
        together = with_cells(experiment, checkpoint, adapted, batch, chosen)
        alone = []
        for task, genotype in enumerate(chosen):
            own = {name: tensor[task : task + 1] for name, tensor in adapted.items()}
            alone += with_cells(experiment, checkpoint, own, batch.task(task), [genotype]).tolist()
        assert together.tolist() == alone


def test_results_follow_their_tasks_when_the_order_changes(experiment, checkpoint, batch, adapted, genotypes):
    order = torch.tensor([2, 0, 1])
    moved = {name: tensor[order] for name, tensor in adapted.items()}
    chosen = [genotypes[0], genotypes[1], genotypes[0]]
    straight = with_cells(experiment, checkpoint, adapted, batch, chosen)
    turned = with_cells(experiment, checkpoint, moved, batch.take(order), [chosen[i] for i in order.tolist()])
    assert torch.equal(turned, straight[order])


def test_the_definition_written_out(experiment, checkpoint, batch, adapted, genotypes):
    """Adapted weights, a new head, K more steps of the weights: as the finish "inherited" has it."""
    network = discrete_network(genotypes[1], experiment.network.space, experiment.network.spec)
    learner, own = replace(experiment.learner, network=network), batch.task(1)
    shared = {name: tensor[1:2] for name, tensor in adapted.items() if not name.startswith("head.")}
    shared |= {name: t.unsqueeze(0) for name, t in checkpoint.params.items() if name.startswith("head.")}
    with torch.no_grad():
        start = learner.start(inherit(network, shared, experiment.network), own)
        if network.spec.head == "shared":
            start |= {name: adapted[name][1:2] for name in ("head.weight", "head.bias")}
        moved = adapt(learner.support_loss, start, own, evaluation_inner(experiment.config)).params
        expected = learner.query_loss(moved, own)[1]
    assert with_cells(experiment, checkpoint, adapted, batch, genotypes)[1] == expected[0]
    row = {name: tensor[1:2] for name, tensor in adapted.items()}
    found = inherited_start(experiment, checkpoint, row, own, network)
    assert found.keys() == start.keys()
    assert all(torch.equal(found[name], start[name]) for name in start)


def test_a_new_prototype_head_is_made_of_the_adapted_features(experiment, checkpoint, batch, adapted, genotypes):
    network = discrete_network(genotypes[0], experiment.network.space, experiment.network.spec)
    start = inherited_start(experiment, checkpoint, adapted, batch, network)
    is_kept = torch.equal(start["head.weight"], adapted["head.weight"])
    assert is_kept == (network.spec.head == "shared")


def test_equal_cells_go_in_one_pass_and_a_pair_is_learnt_once(
    experiment, checkpoint, batch, adapted, genotypes, monkeypatch
):
    passes, real = [], cells._with_cell

    def counted(experiment, checkpoint, own, batch, genotype):
        passes.append((genotype, batch.tasks))
        return real(experiment, checkpoint, own, batch, genotype)

    monkeypatch.setattr(cells, "_with_cell", counted)
    first, second = genotypes[:2]
    choices = [(0, first), (1, first), (2, second), (0, first), (0, second)]
    found = with_choices(experiment, checkpoint, adapted, batch, choices)
    assert passes == [(first, 2), (second, 2)]
    assert found[0] == found[3]


def test_a_task_that_left_the_finite_numbers_scores_0_and_harms_no_other(experiment, checkpoint, batch, adapted):
    broken = {name: tensor.clone() for name, tensor in adapted.items()}
    for tensor in broken.values():
        tensor[1] = torch.nan
    assert finite_tasks(broken).tolist() == [True, False, True]
    genotypes = genotypes_of(broken, experiment.network)
    assert [genotypes[i] for i in (0, 2)] == [genotypes_of(adapted, experiment.network)[i] for i in (0, 2)]
    shared = [genotypes[0]] * TASKS
    found = with_cells(experiment, checkpoint, broken, batch, shared)
    clean = with_cells(experiment, checkpoint, adapted, batch, shared)
    assert found[1] == 0
    assert found[[0, 2]].tolist() == clean[[0, 2]].tolist()


def test_one_lost_number_outside_the_cell_is_enough_to_score_0(experiment, checkpoint, batch, adapted, genotypes):
    broken = dict(adapted)
    name = next(name for name in adapted if is_alpha(name))
    broken[name] = adapted[name].clone()
    broken[name][0, 0, 0] = torch.inf
    assert with_cells(experiment, checkpoint, broken, batch, genotypes)[0] == 0


def test_a_supernet_that_diverges_scores_0(experiment, checkpoint, batch):
    images = batch.support_images.clone()
    images[0] = torch.nan
    params, accuracies = adapt_batch(experiment, checkpoint, replace(batch, support_images=images))
    assert accuracies[0] == 0
    assert finite_tasks(params).tolist() == [False, True, True]


def test_cells_are_in_canonical_form_and_tell_tasks_apart(genotypes, experiment):
    assert [genotype.canonical() for genotype in genotypes] == genotypes
    assert len(set(genotypes)) > 1
    for genotype in genotypes:
        genotype.validate(experiment.network.space)


def test_alphas_held_at_the_start_are_an_adaptation_without_alpha_steps(experiment, checkpoint, batch):
    still = replace(experiment, config=with_settings(experiment.config, {"inner.alpha_rate": 0.0}))
    held = with_fixed_alphas(experiment, checkpoint, batch, alphas_of(checkpoint.params))
    assert torch.equal(held, adapt_batch(still, checkpoint, batch)[1])


def test_alphas_are_given_task_by_task(experiment, checkpoint, batch):
    shape = (TASKS, *experiment.network.space.alpha_shape)
    noise = {kind: 9 * torch.randn(shape, generator=Key((kind,)).torch()) for kind in ("normal", "reduce")}
    together = with_fixed_alphas(experiment, checkpoint, batch, noise)
    alone = [
        with_fixed_alphas(experiment, checkpoint, batch.task(i), {kind: table[i] for kind, table in noise.items()})[0]
        for i in range(TASKS)
    ]
    assert together.tolist() == alone
    assert not torch.equal(together, with_fixed_alphas(experiment, checkpoint, batch, alphas_of(checkpoint.params)))


def test_a_network_without_alphas_is_refused(experiment, checkpoint, batch, adapted, genotypes):
    discrete, inherited = discretised(experiment, checkpoint, genotypes[0])
    for attempt in (
        lambda: adapt_batch(discrete, inherited, batch),
        lambda: with_fixed_alphas(discrete, inherited, batch, {}),
        lambda: with_cells(discrete, inherited, adapted, batch, genotypes),
    ):
        with pytest.raises(ConfigError, match=r"supernet.*discrete cell.*run folder of a search"):
            attempt()


def test_a_wrong_number_of_cells_and_a_foreign_cell_are_refused(experiment, checkpoint, batch, adapted, genotypes):
    with pytest.raises(ConfigError, match="each of 3 tasks, got 2"):
        with_cells(experiment, checkpoint, adapted, batch, genotypes[:2])
    with pytest.raises(GenotypeError, match="not a genotype"):
        with_cells(experiment, checkpoint, adapted, batch, [random_genotype(darts(3), Key(("cell",)))] * TASKS)
