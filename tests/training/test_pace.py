"""How long a run still takes: by its steps, which get cheaper as it commits, and by its minutes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from metadarts.core.rng import Key
from metadarts.networks import supernet
from metadarts.relaxations.paths import Paths
from metadarts.spaces import Kept, darts, random_genotype
from metadarts.training import search
from metadarts.training.clock import Clock
from metadarts.training.commitment import Commitment
from metadarts.training.config import Training
from metadarts.training.pace import Pace
from metadarts.training.records import RunFolder

# Of two nodes: 5 edges of 7 operations are 35 candidates in each cell; of one operation each 5, of a cell 4.
SUPERNET, CHOSEN, CELL = 10.0, 3.142857, 2.914286
"""Seconds of a step: 2, and 8 times the share of the candidates that run."""


@pytest.fixture
def network():
    return supernet(darts(2, inputs_by="pairs", none=False))


def one_operation_each(network):
    kept, space = Kept.everything(network.space), network.space
    scores = {d.name: [[float(k) for k in range(d.shape[1])]] * d.shape[0] for d in space.decisions}
    return network.pruned(kept.best_operations(space, scores))


def cell_of(network):
    return network.discrete(random_genotype(network.space, Key.from_seed(3)))


def remaining(network, seconds, step, commit=None, validations=0, reserve=0.0, **training):
    pace = Pace(commit or Commitment())
    pace.update(network, seconds)
    clock = Clock(Training(**({"meta_steps": 0, "minutes": 0.0} | training)), reserve=reserve)
    return pace.remaining(clock, step, validations)


def test_steps_of_a_run_that_does_not_commit_all_take_the_same(network):
    assert remaining(network, 2.0, 30, meta_steps=100) == pytest.approx(140.0)
    assert remaining(cell_of(network), 2.0, 30, Commitment(cell=0.1), meta_steps=100) == pytest.approx(140.0)


@pytest.mark.parametrize(
    ("commit", "step", "expected"),
    [
        (Commitment(operations=0.25, cell=0.5), 0, 25 * SUPERNET + 25 * CHOSEN + 50 * CELL),
        (Commitment(operations=0.25, cell=0.5), 10, 15 * SUPERNET + 25 * CHOSEN + 50 * CELL),
        (Commitment(cell=0.16), 0, 16 * SUPERNET + 84 * CELL),  # as the presets have it
        (Commitment(cell=0.16, operations=0.5), 6, 10 * SUPERNET + 84 * CELL),
        (Commitment(operations=0.16), 6, 10 * SUPERNET + 84 * CHOSEN),
    ],
)
def test_later_phases_are_foreseen(network, commit, step, expected):
    assert remaining(network, SUPERNET, step, commit, meta_steps=100) == pytest.approx(expected, rel=1e-5)


def test_in_a_later_phase_only_what_is_left_counts(network):
    commit = Commitment(operations=0.25, cell=0.5)
    found = remaining(one_operation_each(network), CHOSEN, 30, commit, meta_steps=100)
    assert found == pytest.approx(20 * CHOSEN + 50 * CELL, rel=1e-5)
    assert remaining(cell_of(network), CELL, 60, commit, meta_steps=100) == pytest.approx(40 * CELL)
    assert remaining(cell_of(network), CELL, 100, commit, meta_steps=100) == 0.0


def test_drawn_paths_cost_what_a_cell_costs_already():
    network = replace(supernet(darts(2, inputs_by="pairs", none=False)), relaxation=Paths())
    assert remaining(network, 3.0, 0, Commitment(cell=0.5), meta_steps=100) == pytest.approx(300.0)


def test_validations_to_come_take_as_long_as_the_longest(network):
    assert remaining(network, 2.0, 100, validations=1, reserve=7.0, meta_steps=100) == pytest.approx(7.0)
    assert remaining(network, 2.0, 90, validations=3, reserve=7.0, meta_steps=100) == pytest.approx(41.0)


def test_minutes_are_told_by_the_clock_and_the_earlier_end_counts(network):
    assert remaining(network, 1.0, 10, validations=2, reserve=5.0, minutes=1.0) == pytest.approx(60.0, abs=5.0)
    assert remaining(network, 1.0, 10, minutes=1.0, meta_steps=30) == pytest.approx(20.0)
    assert remaining(network, 1.0, 10, minutes=1.0, meta_steps=1000) == pytest.approx(60.0, abs=5.0)


def test_the_first_step_of_a_network_counts_until_there_is_a_second(network):
    pace, clock = Pace(Commitment()), Clock(Training(meta_steps=100))
    told = []
    for step, seconds in enumerate((30.0, 1.0, 2.0, 1.1), 1):
        pace.update(network if step < 4 else cell_of(network), seconds)
        told.append(pace.remaining(clock, step, 0))
    assert told == pytest.approx([99 * 30.0, 98 * 1.0, 97 * 1.1, 96 * 1.1])


def test_a_search_tells_it_after_every_step(make, one_thread, tmp_path):
    experiment = make({"training.meta_steps": 4, "training.validations": 2})
    told = []
    search(experiment, RunFolder.create(tmp_path / "run", experiment.config, {}), told.append)
    assert len(told) == 4
    assert all(0.0 < one.remaining < math.inf for one in told)  # at the last step a validation is to come
