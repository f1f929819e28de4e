"""What is said of solutions: intervals, gaps, sizes, and the baselines that need no search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metadarts.api.learn import HeldOut, Plan, adapt_start
from metadarts.api.measure import gap, mean_and_interval, measured, size_of
from metadarts.api.pixels import pixel_baselines
from metadarts.api.task import Task, logits


def test_an_interval_is_196_standard_errors():
    mean, interval = mean_and_interval(torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert (mean, interval) == (0.75, pytest.approx(1.96 * 0.5 / 2))
    assert mean_and_interval(torch.tensor([1.0]))[1] == math.inf


def test_a_gap_is_paired():
    one, other = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    assert gap(one, one) == (0.0, 0.0)
    assert gap(one, other) == (pytest.approx(1 / 3), pytest.approx(1.96 / 3))


def test_a_solution_is_measured_under_both_policies(cases, start, support):
    watched = cases.held_out_of(support)
    solution = adapt_start(start, support, Plan(1), watched)
    facts, hits = measured(Task(support, {"soft": solution}), solution, watched)
    for name, bn in (("accuracy", "support"), ("transductive", "transductive")):
        found = logits(support, solution.network, solution.with_axis(), watched.pixels, bn).argmax(1)
        assert facts[name] == float((found == watched.labels).double().mean())
    assert facts["images"] == len(hits) == 15
    assert facts["before"] == solution.history[0].accuracy


def test_a_single_image_has_no_interval_and_its_facts_stay_json(cases, start, support):
    watched = cases.held_out_of(support)
    solution = adapt_start(start, support, Plan(0))
    task = Task(support, {"soft": solution})
    facts, _ = measured(task, solution, HeldOut(watched.pixels[:1], watched.labels[:1]))
    assert facts["interval95"] is None
    replace(task, facts={"measured": {"soft": facts}}).model().to_bytes()


def test_size_counts_what_the_model_stores_and_multiplies(start, support):
    model = Task(support, {"soft": adapt_start(start, support, Plan(0))}).model()
    size = size_of(model)
    assert size["weights"] == sum(tensor.numel() for tensor in model.tensors.values())
    stem = 2 * (16 * 16 * 4 * 9 + 8 * 8 * 6 * 4 * 9)
    assert size["flops"] > stem


def test_pixel_baselines_know_nothing_of_the_starts_scale(cases, support):
    watched = cases.held_out_of(support)
    found = pixel_baselines(support, watched)
    assert set(found) == {"logistic regression on pixels", "nearest class mean on pixels"}
    assert min(found.values()) > 0.9, "stripes are alike pixel by pixel"
    for form in (replace(support.form, mean=(0.9,), std=(0.01,)), replace(support.form, invert=True)):
        assert pixel_baselines(replace(support, form=form), watched) == found
