"""Measuring a run: everyone meets the same tasks, and the figures say what they are of."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.types import alphas_of, is_alpha
from metadarts.tasks import Source
from metadarts.training import evaluate_run
from metadarts.training.build import held_out
from metadarts.training.evaluation import by_domain, evaluation_inner

ASKED = {
    "accuracy",
    "interval95",
    "tasks",
    "ways",
    "shots",
    "queries",
    "steps",
    "bn",
    "episodes_sha256",
    "checkpoint_step",
    "curve",
}


@pytest.fixture(scope="module")
def checkpoint(finished):
    return finished.run.load("best")


@pytest.fixture(scope="module")
def facts(finished, checkpoint):
    return evaluate_run(finished.experiment, checkpoint, "test", 10).facts


def test_the_result_has_the_keys_of_the_recipe(facts, finished):
    assert set(facts) >= ASKED
    config = finished.experiment.config
    assert facts["tasks"] == 10
    assert (facts["ways"], facts["shots"], facts["queries"]) == (3, 1, 3)
    assert (facts["steps"], facts["bn"]) == (config.evaluate.steps, config.model.bn)
    assert 0.0 <= facts["accuracy"] <= 1.0
    assert facts["interval95"] >= 0.0
    assert facts["checkpoint_step"] == finished.run.load("best").facts["step"]
    assert len(facts["episodes_sha256"]) == 64
    int(facts["episodes_sha256"], 16)


def test_the_curve_has_a_number_for_every_step_and_ends_at_the_accuracy(facts):
    assert len(facts["curve"]) == facts["steps"] + 1
    assert facts["curve"][-1] == pytest.approx(facts["accuracy"], rel=1e-6)
    assert facts["curve_tasks"] == 10
    assert all(0.0 <= value <= 1.0 for value in facts["curve"])


def test_the_result_is_plain_json(facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_same_run_measured_twice_gives_the_same_json(facts, finished, make):
    again = evaluate_run(make(), finished.run.load("best"), "test", 10).facts
    assert json.dumps(again) == json.dumps(facts)


def test_the_accuracy_is_the_mean_over_tasks(finished, checkpoint, facts):
    accuracies = evaluate_run(finished.experiment, checkpoint, "test", 10).evaluation.accuracies.double()
    assert facts["accuracy"] == pytest.approx(float(accuracies.mean()))
    assert facts["interval95"] == pytest.approx(1.96 * float(accuracies.std()) / math.sqrt(10))
    assert accuracies.std() > 0


def test_runs_of_two_seeds_meet_the_same_tasks(make, facts):
    ours, theirs = (held_out(make({"training.seed": seed}), "test") for seed in (0, 7))
    assert ours.sha256(10) == theirs.sha256(10) == facts["episodes_sha256"]
    assert torch.equal(ours.batch(0, 4).query_images, theirs.batch(0, 4).query_images)


@pytest.mark.parametrize("change", [{"tasks.shots": 2}, {"evaluate.queries": 2}, {"tasks.ways": 2}])
def test_other_tasks_have_another_hash(make, facts, change):
    assert held_out(make(change), "test").sha256(10) != facts["episodes_sha256"]


def test_the_hash_depends_on_split_seed_number_and_images(make, source, facts):
    experiment = make()
    images = source.images.copy()
    images[source.classes[source.split["test"][0]].rows[0], 0, 0, 0] ^= 1
    hashes = {
        facts["episodes_sha256"],
        held_out(experiment, "val").sha256(10),
        held_out(experiment, "test", seed=1).sha256(10),
        held_out(experiment, "test").sha256(9),
        held_out(make(source=replace(source, images=images)), "test").sha256(10),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize("cuts", [(0, 7), (0, 3, 7), (0, 1, 2, 3, 4, 5, 6, 7)], ids=["whole", "two", "singly"])
def test_tasks_do_not_depend_on_how_many_are_drawn_at_once(make, cuts):
    episodes = held_out(make(), "test")
    whole = episodes.batch(0, 7)
    parts = [episodes.batch(*pair) for pair in pairwise(cuts)]
    for field in fields(whole):
        if field.name not in ("ways", "ragged", "noise", "halves", "domain"):
            joined = torch.cat([getattr(part, field.name) for part in parts])
            assert torch.equal(joined, getattr(whole, field.name)), field.name


@pytest.mark.parametrize("size", [1, 10])
def test_the_figures_do_not_depend_on_the_batch(make, checkpoint, facts, size):
    other = evaluate_run(make({"evaluate.batch": size}), checkpoint, "test", 10).facts
    assert other["episodes_sha256"] == facts["episodes_sha256"]
    assert other["curve"] == pytest.approx(facts["curve"], abs=1e-6)
    assert other["interval95"] == pytest.approx(facts["interval95"], abs=1e-6)


@pytest.mark.parametrize("split", ["val", "test"])
def test_only_the_split_asked_for_is_opened(finished, checkpoint, monkeypatch, split):
    opened, classes = set(), Source.class_numbers
    monkeypatch.setattr(Source, "class_numbers", lambda self, split: opened.add(split) or classes(self, split))
    assert evaluate_run(finished.experiment, checkpoint, split, 2).facts["split"] == split
    assert opened == {split}


def test_an_unknown_split_is_refused(finished, checkpoint):
    with pytest.raises(DataError, match="unknown split 'tset'; did you mean 'test'"):
        evaluate_run(finished.experiment, checkpoint, "tset", 2)


def test_measuring_changes_no_parameter(finished, checkpoint):
    before = {name: tensor.clone() for name, tensor in checkpoint.params.items()}
    evaluate_run(finished.experiment, checkpoint, "test", 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.params.items())


def test_more_steps_at_test_time_go_on_from_the_same_start(make, checkpoint, facts):
    longer = evaluate_run(make({"evaluate.steps": 4}), checkpoint, "test", 10).facts
    assert longer["steps"] == 4
    assert longer["curve"][:3] == pytest.approx(facts["curve"], abs=1e-6)


def test_learned_rates_are_used(make, checkpoint, finished):
    def losses(rates):
        learned = replace(checkpoint, log_rates=rates)
        return evaluate_run(finished.experiment, learned, "test", 4).evaluation.losses

    inner = finished.experiment.config.inner
    rates = {
        "rates.weights": torch.tensor(inner.weight_rate).log(),
        "rates.alphas": torch.tensor(inner.alpha_rate).log(),
    }
    torch.testing.assert_close(losses(rates), losses({}))
    assert not torch.allclose(losses({name: rate + 1.0 for name, rate in rates.items()}), losses({}))


def test_the_inner_loop_of_evaluation_differs_in_length_only(tiny):
    config = tiny({"inner.clip": 3.0, "inner.checkpoint": 1, "evaluate.steps": 7})
    assert evaluation_inner(config) == replace(config.inner, steps=7, order="first", checkpoint=0)


def test_progress_is_told(finished, checkpoint):
    done = []
    evaluate_run(finished.experiment, checkpoint, "test", 10, lambda now: done.append(now.done))
    assert done == [4, 8, 10]


def test_alphas_by_the_kind_of_cell(finished, checkpoint):
    found = alphas_of(checkpoint.params)
    assert set(found) == set(finished.experiment.network.space.cell_types)
    assert len(found) == sum(map(is_alpha, checkpoint.params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space.nodes": 3}, "shape|expected a tensor|no such tensor"),
        ({"macro.channels": 6}, "expected the shape .*, got"),
        ({"macro.stem": (4, 8)}, "expected the shape .*, got"),
        ({"model.head": "prototype"}, "'head.*': expected"),
        ({"model.affine": True}, "expected a tensor, got none"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(make, checkpoint, change, words):
    with pytest.raises(ConfigError, match=f"^checkpoint of another space or network: .*({words})") as caught:
        make(change).check_params(checkpoint.params)
    assert "\n" not in str(caught.value)


def test_its_own_checkpoint_is_taken(make, checkpoint):
    make({"tasks.ways": 2, "tasks.shots": 3}).check_params(checkpoint.params)


def test_figures_by_domain():
    found = by_domain(torch.tensor([1.0, 0.0, 0.5, 0.25]), ["a", "b", "a", "a"])
    assert list(found) == ["a", "b"]
    assert found["a"]["accuracy"] == pytest.approx(1.75 / 3)
    assert found["b"] == {"accuracy": 0.0, "tasks": 1}  # of one task there is no interval, which JSON could not hold
    assert found["a"]["interval95"] == pytest.approx(1.96 * torch.tensor([1.0, 0.5, 0.25]).std().item() / 3**0.5)
