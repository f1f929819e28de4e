"""What is said of solutions: intervals, gaps, sizes, and the baselines that need no search."""

from __future__ import annotations

from dataclasses import replace

import torch

from metadarts.fewshot.learn import AdaptSettings, HeldOutImages, adapt_start
from metadarts.fewshot.measure import gap, measured, size_of
from metadarts.fewshot.pixels import pixel_baselines
from metadarts.fewshot.task import Task, logits


def test_a_gap_is_paired_and_has_no_interval_where_images_are_few():
    one, other = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    assert gap(one, one) == "+0.0%"
    assert gap(one, other) == "+33.3%"
    many, worse = torch.ones(100), torch.tensor([1.0, 0.0] * 50)
    assert gap(many, worse) == "+50.0% ± 9.8%"
    assert gap(worse, worse) == "+0.0% ± 0.0%"


def test_a_solution_is_measured_under_both_policies(cases, start, support):
    watched = cases.held_out_of(support)
    solution = adapt_start(start, support, AdaptSettings(1), watched)
    facts, hits = measured(Task(support, {"supernet": solution}), solution, watched)
    for name, bn in (("accuracy", "support"), ("transductive", "transductive")):
        found = logits(support, solution.network, solution.with_axis(), watched.pixels, bn).argmax(1)
        assert facts[name] == float((found == watched.labels).double().mean())
    assert facts["images"] == len(hits) == 15
    assert facts["before"] == solution.history[0].accuracy


def test_facts_of_a_single_image_stay_json(cases, start, support):
    watched = cases.held_out_of(support)
    solution = adapt_start(start, support, AdaptSettings(0))
    task = Task(support, {"supernet": solution})
    facts, _ = measured(task, solution, HeldOutImages(watched.pixels[:1], watched.labels[:1]))
    assert facts["interval95"][1] - facts["interval95"][0] > 0.5
    replace(task, facts={"measured": {"supernet": facts}}).model().to_bytes()


def test_size_counts_what_the_model_stores_and_multiplies(start, support):
    model = Task(support, {"supernet": adapt_start(start, support, AdaptSettings(0))}).model()
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
