"""How long a run still takes: by its steps, which get cheaper as it commits, and by its minutes."""

from __future__ import annotations

import pytest

from metadarts.core.rng import Key
from metadarts.networks import supernet
from metadarts.spaces import Kept, darts, random_genotype
from metadarts.training import search
from metadarts.training.clock import Clock
from metadarts.training.commitment import Commitment
from metadarts.training.config import Training
from metadarts.training.pace import WITHOUT_CANDIDATES, Pace
from metadarts.training.records import RunFolder

COMMIT = Commitment(operations=0.25, cell=0.5)


@pytest.fixture
def network():
    return supernet(darts(2, inputs_by="pairs", none=False))


def one_operation_each(network):
    kept, space = Kept.everything(network.space), network.space
    scores = {d.name: [[float(k) for k in range(d.shape[1])]] * d.shape[0] for d in space.decisions}
    return network.pruned(kept.best_operations(space, scores))


def seconds_of(network, whole):
    return 10.0 * (WITHOUT_CANDIDATES + (1.0 - WITHOUT_CANDIDATES) * network.candidates / whole.candidates)


def remaining(network, seconds, step, commit=COMMIT, **training):
    pace = Pace(commit, network)
    pace.update(network, seconds)
    asked = {"meta_steps": 0, "minutes": 0.0} | training
    return pace.remaining(Clock(Training(**asked)), step)


def test_steps_of_a_run_that_does_not_commit_all_take_the_same(network):
    assert remaining(network, 2.0, 30, Commitment(), meta_steps=100) == pytest.approx(140.0)


def test_from_each_phase_the_later_ones_are_foreseen(network):
    chosen = one_operation_each(network)
    cell = network.discrete(random_genotype(network.space, Key.from_seed(3)))
    first, second, third = (seconds_of(one, network) for one in (network, chosen, cell))
    assert first > second > third
    for step, now, expected in (
        (0, network, 25 * first + 25 * second + 50 * third),
        (10, network, 15 * first + 25 * second + 50 * third),
        (30, chosen, 20 * second + 50 * third),
        (60, cell, 40 * third),
        (100, cell, 0.0),
    ):
        assert remaining(now, seconds_of(now, network), step, meta_steps=100) == pytest.approx(expected)


def test_minutes_are_told_by_the_clock_and_the_earlier_end_counts(network):
    assert remaining(network, 1.0, 10, minutes=1.0) == pytest.approx(60.0, abs=0.5)
    assert remaining(network, 1.0, 10, Commitment(), minutes=1.0, meta_steps=30) == pytest.approx(20.0)
    assert remaining(network, 1.0, 10, Commitment(), minutes=1.0, meta_steps=1000) == pytest.approx(60.0, abs=0.5)


def test_a_search_tells_it_after_every_step(make, one_thread, tmp_path):
    experiment = make({"training.meta_steps": 4})
    told = []
    search(experiment, RunFolder.create(tmp_path / "run", experiment.config, {}), told.append)
    assert len(told) == 4
    assert told[0].remaining > 0.0 == told[-1].remaining
