"""Predictions held against prior and shuffled tasks: every figure is what its name says, and a signal is found."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.types import ALPHA_PREFIX, alphas_of
from metadarts.derive import derive_genotype, genotype_distance
from metadarts.papers import prediction
from metadarts.papers.cells import adapt_batch, finite_tasks, genotypes_of, with_cells
from metadarts.papers.prediction import STARTS, Figure, PredictionStudy, study_prediction
from metadarts.papers.prediction_page import answers, as_markdown
from metadarts.papers.recording import before_adaptation, record_tasks
from metadarts.predictor import Archive, MetaModel, PredictorSpec, Rebuilder, Stem
from metadarts.predictor.head import choices_of
from metadarts.relaxations import DEFAULT_RELAXATION
from metadarts.spaces import darts
from metadarts.stats import Estimate
from metadarts.training import with_settings
from metadarts.training.build import held_out
from tests.papers.cases import relaxed, scattered, tiny

TASKS = 5


@pytest.fixture(scope="module")
def experiment():
    return tiny(inner__alpha_rate=200.0, evaluate__steps=3)


@pytest.fixture(scope="module")
def checkpoint(experiment):
    return scattered(experiment)


@pytest.fixture(scope="module")
def model(experiment, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "a.sqlite"
    with Archive.open(path, write=True) as archive:
        record_tasks(experiment, checkpoint, archive, 8)
        fresh = MetaModel(experiment.network.space, Stem.of_params(checkpoint.params), PredictorSpec(width=8, epochs=3))
        return fresh.fit(archive, Rebuilder(experiment.source))


@pytest.fixture(scope="module")
def study(experiment, checkpoint, model):
    return study_prediction(experiment, checkpoint, model, TASKS, steps=(0, 1, 3))


def test_the_meta_learned_start_is_the_usual_adaptation(experiment, checkpoint, study):
    batch = held_out(experiment, "test").batch(0, TASKS)
    after = adapt_batch(experiment, checkpoint, batch)[1]
    assert study.per_task["accuracy 3 meta"] == pytest.approx(after.tolist(), abs=1e-6)
    before = before_adaptation(experiment, checkpoint, batch)
    assert study.per_task["accuracy 0 meta"] == pytest.approx(before.tolist(), abs=1e-6)
    assert len({tuple(study.per_task[f"accuracy 0 {name}"]) for name in STARTS}) > 1, "alphas do matter here"


def test_nearness_is_that_to_the_tasks_own_architecture(experiment, checkpoint, model, study):
    """The likelihood by hand, from the prediction of each task and the cell that it comes to."""
    batch = held_out(experiment, "test").batch(0, TASKS)
    adapted, _ = adapt_batch(experiment, checkpoint, batch)
    cells = genotypes_of(adapted, experiment.network)
    found = model.predict(batch).log_likelihood(choices_of(cells, model.space)) / (2 * 1 * 3)
    assert study.per_task["likelihood predicted"] == pytest.approx(found.tolist(), abs=1e-4)
    named = [a == b for a, b in zip(model.predict(batch).genotypes(), cells, strict=True)]
    assert [share == 1.0 for share in study.per_task["agreement predicted"]] == named


def test_a_shuffled_prediction_is_that_of_the_next_task(experiment, checkpoint, model, study):
    """Passes are of 2 and of 3 tasks; within each, the next one in cyclic order."""
    batch = held_out(experiment, "test").batch(0, TASKS)
    adapted, _ = adapt_batch(experiment, checkpoint, batch)
    cells, said = genotypes_of(adapted, experiment.network), model.predict(batch)
    of = [1, 0, 3, 4, 2]
    found = said.log_likelihood(choices_of(cells, model.space, of)).tolist()
    # `of` tells which prediction each cell is held against: rows of `choices_of` are tasks of the prediction.
    assert study.per_task["likelihood shuffled"] == pytest.approx([value / 6 for value in found], abs=1e-4)


def test_the_meta_learned_cell_is_that_of_the_runs_relaxation(tmp_path):
    experiment, checkpoint = relaxed(tmp_path, evaluate__steps=1, inner__alpha_rate=20.0)
    space, relaxation, path = experiment.network.space, experiment.network.relaxation, tmp_path / "a.sqlite"
    with Archive.open(path, write=True) as archive:
        record_tasks(experiment, checkpoint, archive, 4)
        fresh = MetaModel(space, Stem.of_params(checkpoint.params), PredictorSpec(width=8, epochs=1))
        fitted = fresh.fit(archive, Rebuilder(experiment.source))
    found = study_prediction(experiment, checkpoint, fitted, 2, cells=False, steps=(1,))
    adapted, _ = adapt_batch(experiment, checkpoint, held_out(experiment, "test").batch(0, 2))
    alphas, own = alphas_of(checkpoint.params), genotypes_of(adapted, experiment.network)
    cells = [derive_genotype(alphas, space, each).canonical() for each in (relaxation, DEFAULT_RELAXATION)]
    assert cells[0] != cells[1], "the relaxation matters here"
    choices = len(own[0].normal) + len(own[0].reduce)
    expected = [1 - genotype_distance(cells[0], cell) / choices for cell in own]
    assert found.per_task["agreement meta"] == pytest.approx(expected, abs=1e-6)


def test_a_model_that_knows_is_found_out_and_one_that_does_not_is_too(experiment, checkpoint, model, monkeypatch):
    """A model that says of each task what it comes to carries a signal; one that says the same of all does not."""

    class Oracle:
        space, spec, fitted, head = model.space, model.spec, 8, model.head

        def __init__(self, knows: bool) -> None:
            self.knows = knows

        def predict(self, batch):
            adapted, _ = adapt_batch(experiment, checkpoint, batch)
            alphas = {n[len(ALPHA_PREFIX) :]: t for n, t in adapted.items() if n.startswith(ALPHA_PREFIX)}
            if not self.knows:
                alphas = {kind: table.mean(0, keepdim=True).expand_as(table) for kind, table in alphas.items()}
            said = prediction.of_alphas(alphas, model.space)
            return replace(said, operations={kind: 50 * table for kind, table in said.operations.items()})

    wide = replace(experiment, config=with_settings(experiment.config, {"evaluate.batch": 8}))
    found = {knows: study_prediction(wide, checkpoint, Oracle(knows), 16, cells=False, steps=(0, 3))
             for knows in (True, False)}  # fmt: skip
    for knows in (True, False):
        told = " ".join(answers(found[knows]))
        assert ("carries something of the task" in told) is knows
        assert ("No signal was found" in told) is not knows
    rows = {row.name: row for row in found[True].distance}
    assert rows["predicted"].value.mean == pytest.approx(0.0, abs=1e-6)
    assert rows["shuffled"].difference.high < 0
    agreed = {row.name: row.value.mean for row in found[True].agreement}
    assert agreed["predicted"] == 1.0


def test_the_page_and_the_json_have_the_same_figures(study):
    page, told = as_markdown(study), json.loads(json.dumps(study.as_json()))
    assert told["format"] == "metadarts.prediction"
    assert f"on {TASKS} held-out tasks (glyphs test, 3-way" in page
    for name in STARTS:
        mean = 100 * np.mean(study.per_task[f"accuracy 1 {name}"])
        assert f"| {name} | {STARTS[name]} | {mean:.2f} [" in page
    assert "The cell itself" in page
    assert page.count("After ") == 3


def test_a_task_that_leaves_the_finite_numbers_is_left_out_and_counted(
    experiment, checkpoint, model, study, monkeypatch
):
    def all_but_one(params):
        found = finite_tasks(params)
        return found & (torch.arange(len(found)) > 0)

    monkeypatch.setattr(prediction, "finite_tasks", all_but_one)
    found = study_prediction(experiment, checkpoint, model, TASKS, cells=False, steps=(0, 3))
    assert (study.facts["finite_tasks"], found.facts["finite_tasks"]) == (TASKS, TASKS - 2)
    kept = [1, 3, 4]
    assert found.per_task["accuracy 3 meta"] == [study.per_task["accuracy 3 meta"][task] for task in kept]


def test_cells_are_cut_out_of_the_supernet_before_any_step(experiment, checkpoint, model, study):
    batch = held_out(experiment, "test").batch(0, TASKS)
    fresh = {name: tensor.expand(TASKS, *tensor.shape) for name, tensor in checkpoint.params.items()}
    with torch.no_grad():
        start = experiment.learner.start(fresh, batch)
    found = with_cells(experiment, checkpoint, start, batch, model.predict(batch).genotypes())
    assert study.per_task["cells predicted"] == pytest.approx(found.tolist(), abs=1e-5)


def made(meta: Estimate) -> PredictionStudy:
    shuffled = Estimate(0.0, -1.0, 1.0)
    value = Estimate(0.5, 0.4, 0.6)
    rows = tuple(Figure(n, value, {"predicted": None, "meta": meta}.get(n, shuffled)) for n in STARTS)
    return PredictionStudy({}, rows, rows, rows, {"0": rows, "5": rows}, (), {})


@pytest.mark.parametrize(("meta", "said"), [
    (Estimate(0.01, 0.005, 0.02), "accuracy is higher after 0 and 5 steps (points: +1.00 [+0.50, +2.00] after 0"),
    (Estimate(-0.01, -0.02, -0.005), "accuracy is lower after 0 and 5 steps"),
    (Estimate(0.01, -0.005, 0.02), "worth nothing that could be measured"),
])  # fmt: skip
def test_a_warm_start_is_said_to_help_only_where_its_interval_does(meta, said):
    assert said in " ".join(answers(made(meta)))


def test_what_does_not_fit_is_refused(experiment, checkpoint, model):
    with pytest.raises(ConfigError, match="at least 2, whose architectures"):
        study_prediction(experiment, checkpoint, model, 1)
    other = MetaModel(darts(2), model.extractor, model.spec)
    with pytest.raises(ConfigError, match="with 2 nodes, the run of 'darts' with 1"):
        study_prediction(experiment, checkpoint, other, 4)
