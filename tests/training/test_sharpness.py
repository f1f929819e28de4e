"""Records of how far the alphas have chosen, and the panels made of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Stage
from metadarts.networks import Network, NetworkSpec
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import darts
from metadarts.training.recording import alpha_facts, recorded_cell
from metadarts.training.sharpness import measures, sharpness_panels

SPACE = replace(darts(2), inputs_by="pairs")
NETWORK = Network(NetworkSpec(), SPACE, relaxation=RELAXATIONS["annealed"]())


def params(seed: int):
    key = Key.from_seed(seed)
    return {ALPHA_PREFIX + d.name: torch.randn(d.shape, generator=key.child(d.name).torch()) for d in SPACE.decisions}


def record(step: int, progress: float, before=None, seed: int = 1):
    return {"step": step} | alpha_facts(params(seed), NETWORK, Stage(2, 2, progress), before)


def test_a_record_measures_the_weights_in_use_beside_the_final_scores():
    first, last = record(0, 0.0), record(9, 1.0)
    assert (first["progress"], last["progress"]) == (0.0, 1.0)
    assert first["mixing_entropy_normal"] > 1.2 * last["mixing_entropy_normal"]
    for name in ("entropy_normal", "share_reduce", "margin_normal.inputs1"):
        assert first[name] == pytest.approx(last[f"mixing_{name}"]) == last[name]


def test_stability_needs_a_cell_before():
    first = record(0, 0.0)
    assert "stability" not in first
    assert record(1, 0.1, recorded_cell(first))["stability"] == 1.0
    assert record(1, 0.1, recorded_cell(first), seed=2)["stability"] < 1.0


@pytest.mark.parametrize("text", [None, 3, "cell", {}])
def test_a_cell_that_cannot_be_read_is_none(text):
    assert recorded_cell({"genotype": text}) is None
    assert recorded_cell({}) is None


def test_panels_show_shares_of_even_weights_and_the_final_scores_where_they_differ():
    found = [measures(record(step, share)) for step, share in ((0, 0.0), (5, 0.6), (9, 1.0))]
    entropy, margin = sharpness_panels(found, SPACE)
    shown = ["normal cell", "normal cell, inputs", "reduction cell", "reduction cell, inputs"]
    for panel in (entropy, margin):
        assert list(panel.series) == [name for one in shown for name in (one, f"_{one}, final scores")]
        assert all(list(line.steps) == [0, 5, 9] for line in panel.series.values())
    line, dashed = entropy.series["normal cell"], entropy.series["_normal cell, final scores"]
    assert line.values[0] == pytest.approx(record(0, 0.0)["mixing_entropy_normal"] / math.log(8))
    assert line.values[-1] == pytest.approx(dashed.values[-1])
    assert (line.color, dashed.dash) == (dashed.color, "--")
    inputs = record(5, 0.6)["mixing_margin_normal.inputs1"]  # node 0 has one pair of inputs: nothing to decide
    assert margin.series["normal cell, inputs"].values[1] == pytest.approx(inputs)


def test_records_of_other_versions_show_what_they_have():
    old = [
        measures({"step": 1, "entropy_normal": math.log(8)}),
        measures({"entropy_normal": 1.0}),
        measures({"step": 2}),
    ]
    (panel,) = sharpness_panels(old, SPACE)
    assert {name: (line.steps, line.values, line.dash) for name, line in panel.series.items()} == {
        "normal cell": ([1.0], [1.0], "-")
    }
    assert sharpness_panels([], SPACE) == []
