"""The comparison with simple methods: same tasks, and rows that must agree where two methods are one."""

from __future__ import annotations

import pytest

from metadarts.tasks import Source, nearest_class_mean
from metadarts.training import evaluate_run
from metadarts.training.baselines import compare
from metadarts.training.build import held_out
from metadarts.training.checkpoints import Checkpoint

TASKS = 6


def rows(experiment, params):
    return compare(experiment, Checkpoint(params, {}, {"step": 0}), TASKS)["rows"]


def test_the_comparison_of_a_run(finished, monkeypatch):
    opened, classes = set(), Source.class_numbers
    monkeypatch.setattr(Source, "class_numbers", lambda self, split: opened.add(split) or classes(self, split))
    experiment, checkpoint = finished.experiment, finished.run.load("best")
    done = []
    table = compare(experiment, checkpoint, TASKS, lambda now: done.append(now.done))
    assert opened == {"test"}
    facts = evaluate_run(experiment, checkpoint, "test", TASKS).facts
    adapted, unadapted, features, pixels, chance = table["rows"]
    assert (adapted["accuracy"], adapted["interval95"]) == (facts["accuracy"], facts["interval95"])
    assert {name: value for name, value in table.items() if name != "rows"} == facts
    assert done == [4, 6]
    assert unadapted["accuracy"] == pytest.approx(1 / 3, abs=1e-7), "one class vector for all classes"
    assert unadapted["interval95"] == pytest.approx(0.0, abs=1e-7)
    mean = nearest_class_mean(held_out(experiment, "test").batch(0, TASKS)).mean()
    assert pixels["accuracy"] == pytest.approx(float(mean))
    assert 0.0 <= features["accuracy"] <= 1.0
    assert chance["accuracy"] == pytest.approx(1 / 3)
    assert chance["interval95"] == pytest.approx(0.0, abs=1e-7)
    assert adapted["adapted_gains"] == 0.0
    for row in table["rows"]:
        assert row["adapted_gains"] == pytest.approx(adapted["accuracy"] - row["accuracy"], abs=1e-6)


def test_an_unadapted_prototype_head_is_the_nearest_class_mean(make):
    """Snell et al. (2017), section 2.4: the linear layer of class means is the rule of the nearest mean."""
    experiment = make({"model.head": "prototype"})
    _, unadapted, features, *_ = rows(experiment, experiment.fresh_state().params)
    assert unadapted["accuracy"] == pytest.approx(features["accuracy"], abs=1e-7)
    assert unadapted["interval95"] == pytest.approx(features["interval95"], abs=1e-7)
    assert unadapted["accuracy"] > 0.4


def test_adapting_by_no_step_is_not_adapting(make):
    experiment = make({"evaluate.steps": 0})
    adapted, unadapted, *_ = rows(experiment, experiment.fresh_state().params)
    assert "0 inner steps" in adapted["method"]
    assert adapted["accuracy"] == unadapted["accuracy"]
