"""Judging candidates on validation tasks, and choosing a cell of a run by them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError, GenotypeError, ResourceError
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import SELECTIONS, derive_genotype, genotype_weights
from metadarts.meta import evaluate
from metadarts.spaces import random_genotype
from metadarts.training import discretised, selection
from metadarts.training.build import held_out
from metadarts.training.evaluation import evaluation_inner
from metadarts.training.selection import TaskJudge, choose, searched, selection_rule

TASKS = 3
KEY = Key(("tests", "judge"))


@pytest.fixture(scope="module")
def checkpoint(finished):
    """With alphas that differ, and a head that makes tasks differ."""
    found = finished.run.load("best")
    params = {
        name: tensor + torch.randn(tensor.shape, generator=KEY.child(name).torch())
        if name.startswith("alphas.") or name == "head.vector"
        else tensor
        for name, tensor in found.params.items()
    }
    return replace(found, params=params)


@pytest.fixture(scope="module")
def exact(make):
    """(tasks at once) -> the experiment in double precision."""
    return lambda batch, **more: make({"model.precision": "fp64", "evaluate.batch": batch, **more})


@pytest.fixture(scope="module")
def candidates(finished):
    """Masked supernets and discrete cells."""
    space = finished.experiment.network.space
    found = []
    for number in range(4):
        generator = KEY.child(number).torch()
        tables = {cell: torch.rand(space.alpha_shape, generator=generator).double() for cell in space.cell_types}
        found.append(
            {cell: table * (torch.rand(table.shape, generator=generator) > 0.3) for cell, table in tables.items()}
        )
    cells = [random_genotype(space, KEY.child("cell", number)) for number in range(3)]
    return found + [genotype_weights(cell, space, dtype=torch.float64) for cell in cells]


def alone(experiment, checkpoint, tables=None) -> torch.Tensor:
    """Accuracies of one candidate, on tasks one by one."""
    learner = experiment.learner if tables is None else replace(experiment.learner, weights=tables)
    tasks = held_out(experiment, "val", purpose="selection")
    inner = evaluation_inner(experiment.config)
    return evaluate(
        learner, checkpoint.params, tasks.batch, inner, tasks=TASKS, rates=checkpoint.rates, batch_size=1
    ).accuracies.double()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_a_batch_of_candidates_and_tasks_is_each_by_itself(exact, checkpoint, candidates, batch):
    experiment = exact(batch)
    found = TaskJudge(experiment, checkpoint, TASKS)(candidates)
    expected = [float(alone(experiment, checkpoint, own).mean()) for own in candidates]
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 2, "the candidates differ"


def test_judging_is_repeatable_and_the_supernet_is_that_of_the_run(exact, checkpoint, candidates):
    experiment = exact(7)
    judge = TaskJudge(experiment, checkpoint, TASKS)
    assert judge(candidates[:2]) == judge(candidates[:2])
    assert judge.supernet() == pytest.approx(float(alone(experiment, checkpoint).mean()), abs=1e-12)


def test_a_cell_is_judged_as_its_discrete_network(exact, checkpoint):
    experiment = exact(4)
    cell = random_genotype(experiment.network.space, KEY)
    tables = genotype_weights(cell, experiment.network.space, dtype=torch.float64)
    (found,) = TaskJudge(experiment, checkpoint, TASKS)([tables])
    assert found == pytest.approx(float(alone(*discretised(experiment, checkpoint, cell)).mean()), abs=1e-12)


def test_only_validation_classes_are_met(exact, checkpoint, candidates, monkeypatch):
    asked = []
    real = selection.held_out

    def watched(experiment, split, *more, **named):
        asked.append((split, named))
        return real(experiment, split, *more, **named)

    monkeypatch.setattr(selection, "held_out", watched)
    TaskJudge(exact(2), checkpoint, TASKS)(candidates[:2])
    assert asked
    assert all(own == ("val", {"purpose": "selection"}) for own in asked)


def test_passes_have_no_more_tasks_than_allowed(exact, checkpoint, candidates, monkeypatch):
    sizes = []
    real = selection.evaluate

    def watched(*given, **named):
        sizes.append(named["tasks"])
        return real(*given, **named)

    monkeypatch.setattr(selection, "evaluate", watched)
    for batch, expected in ((2, [2, 1] * 7), (7, [6, 6, 6, 3])):
        sizes.clear()
        TaskJudge(exact(batch), checkpoint, TASKS)(candidates)
        assert sizes == expected


def test_where_memory_runs_out_fewer_go_together_if_allowed(exact, checkpoint, candidates, monkeypatch):
    real = selection.evaluate

    def small(*given, **named):
        if named["tasks"] > 2:
            raise MemoryError("small")
        return real(*given, **named)

    expected = TaskJudge(exact(8), checkpoint, TASKS)(candidates[:3])
    monkeypatch.setattr(selection, "evaluate", small)
    judge = TaskJudge(exact(8, **{"training.fit_memory": True}), checkpoint, TASKS)
    assert judge(candidates[:3]) == pytest.approx(expected, abs=1e-12)
    assert judge.size == 2
    with pytest.raises(ResourceError, match="memory ran out with 8 tasks at once"):
        TaskJudge(exact(8), checkpoint, TASKS)(candidates[:3])


def test_progress_ends_at_all_and_never_goes_back(exact, checkpoint):
    told = []
    rule = SELECTIONS["sampled"](cells=4)
    choose(exact(2), checkpoint, rule, tasks=TASKS, key=KEY, progress=told.append)
    shares = [now.share for now in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[-1].text.startswith("7/7 judged  best ")


@pytest.mark.parametrize("name", ["perturbation", "sampled", "evolution"])
def test_a_choice_is_a_cell_of_the_run_with_its_figures(make, checkpoint, name):
    options = {"sampled": {"cells": "4"}, "evolution": {"population": "3", "generations": "1", "children": "2"}}
    rule, experiment = selection_rule(name, options.get(name, {})), make()
    found = choose(experiment, checkpoint, rule, tasks=2, key=KEY)
    found.selection.genotype.validate(experiment.network.space)
    assert found == choose(experiment, checkpoint, rule, tasks=2, key=KEY)
    assert all(0.0 <= share <= 1.0 for share in (found.supernet, found.chosen, found.argmax))


def test_the_cell_chosen_of_many_is_the_best_of_them(make, checkpoint):
    experiment, judge = make(), TaskJudge(make(), checkpoint, 2)
    known = searched(experiment.config, checkpoint)
    chosen = selection_rule("sampled", {"cells": "8"}).select(known, judge, KEY).genotype
    (again,) = judge([genotype_weights(chosen, known.space, dtype=torch.float64)])
    assert len(judge.found) == 8 + 1
    assert again == pytest.approx(max(judge.found))


def test_what_is_searched_is_read_without_data(finished, checkpoint):
    config = finished.experiment.config
    known = searched(config, checkpoint)
    alphas = alphas_of(checkpoint.params)
    argmax = selection_rule("argmax", {}).select(known, None, KEY).genotype
    assert argmax == derive_genotype(alphas, config.search_space(), config.build_relaxation())
    for cell, table in known.mixing.items():
        torch.testing.assert_close(table, alphas[cell].softmax(-1))
    broken = replace(checkpoint, params={**checkpoint.params, "alphas.normal": torch.zeros(2, 2)})
    with pytest.raises(GenotypeError, match="expected shape"):
        searched(config, broken)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("random", {}, "unknown selection rule 'random'"),
        ("sampled", {"cell": "3"}, "unknown setting 'sampled.cell' of selection rule 'sampled': did you mean 'cells'"),
        ("sampled", {"cells": "many"}, "sampled.cells: expected int"),
        ("threshold", {"least": "2"}, "least: expected a number from 0 to 1"),
    ],
)
def test_rules_and_options_that_there_are_not_are_refused(name, options, said):
    with pytest.raises(ConfigError, match=said):
        selection_rule(name, options)
