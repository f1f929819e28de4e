"""Candidates whose weight is exactly 0 are not run, where their relaxation says that nothing is lost by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from metadarts.core.recording import recording
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.networks import Learner
from metadarts.operations import OPERATIONS
from metadarts.ops import separable
from metadarts.relaxations.gdas import GDAS
from metadarts.relaxations.gumbel import Gumbel
from metadarts.relaxations.hard import Hard
from metadarts.relaxations.paths import Paths
from metadarts.relaxations.softmax import Softmax
from metadarts.relaxations.sparsemax import Sparsemax
from metadarts.testing import check_params_close, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0)


@dataclass(frozen=True)
class ThoroughGDAS(GDAS):
    zeros_learn: ClassVar[bool] = True


@dataclass(frozen=True)
class ThoroughSparsemax(Sparsemax):
    zeros_learn: ClassVar[bool] = True


def counting(counts: Counter[str]):
    """The operations, each of which counts how often it runs."""

    def counted(name, operation):
        def run(state, context):
            counts[name] += 1
            return operation.run(state, context)

        return operation if operation.run is None else replace(operation, run=run)

    return {name: counted(name, operation) for name, operation in OPERATIONS.items()}


def gradients(relaxation, counts=None, **options):
    plain = tiny_learner(nodes=2, head="prototype")
    network = replace(
        plain.network, relaxation=relaxation, operations=counting(Counter() if counts is None else counts)
    )
    learner: Learner = replace(plain, network=network)
    params = generic_params(learner, Key.from_seed(1))
    noise = learner.noise(2, INNER.steps, Key.from_seed(2))
    batch = random_tasks(Key.from_seed(0)).with_noise(noise)
    return meta_gradient(learner, params, batch, replace(INNER, **options), progress=0.5).gradients


@pytest.mark.parametrize(
    ("skipping", "thorough"),
    [(GDAS(), ThoroughGDAS()), (Sparsemax(0.2), ThoroughSparsemax(0.2))],
    ids=["gdas", "sparsemax"],
)
@pytest.mark.parametrize("options", [{}, {"order": "first"}, {"checkpoint": 1}], ids=["exact", "first", "recomputed"])
def test_nothing_is_lost_to_second_order(skipping, thorough, options):
    fewer, all_of_them = Counter(), Counter()
    found, expected = gradients(skipping, fewer, **options), gradients(thorough, all_of_them, **options)
    check_params_close(found, expected, 1e-9)
    assert fewer.total() < all_of_them.total()


def test_one_path_a_task_runs_two_operations_at_most_from_each_state_of_two_edges():
    """Two tasks, an edge or two from each state: of seven operations four at most are needed."""
    paths, mixture = Counter(), Counter()
    gradients(Paths(), paths)
    gradients(Softmax(), mixture)
    assert paths.total() <= 4 / 7 * mixture.total()


@pytest.mark.parametrize("relaxation", [Hard(), Gumbel(hard=True)], ids=repr)
def test_straight_through_needs_every_candidate(relaxation):
    found, mixture = Counter(), Counter()
    gradients(relaxation, found)
    gradients(Softmax(), mixture)
    assert found == mixture


def test_a_recorded_step_looks_at_no_weight():
    found, mixture = Counter(), Counter()
    with recording():
        gradients(Sparsemax(0.2), found)
    gradients(Softmax(), mixture)
    assert found == mixture


@pytest.mark.parametrize("relaxation", [GDAS(), Paths(), Sparsemax(0.2)], ids=repr)
def test_of_a_recorded_step_the_kernels_skip_what_is_not_needed(relaxation, monkeypatch):
    """As on a GPU: every candidate is called, with a mask of where it counts."""
    masks = []

    def seen(*arguments, needed=None, **options):
        masks.append(needed)
        return separable(*arguments, needed=needed, **options)

    monkeypatch.setattr("metadarts.operations._separable.separable", seen)
    expected = gradients(relaxation)
    looked, masks[:] = list(masks), []
    with recording():
        found = gradients(relaxation)
    check_params_close(found, expected, 1e-9)
    assert len(masks) > len(looked)
    assert all(mask is not None for mask in masks)
    assert 0.0 < float(torch.cat([mask.flatten() for mask in masks]).double().mean()) < 0.6


def test_a_relaxation_that_says_nothing_skips_nothing():
    class Silent:
        def noise(self, shape, key):
            return None

        def weights(self, alpha, at, noise=None):
            return Sparsemax(0.2).weights(alpha, at)

        def scores(self, alpha):
            return Sparsemax(0.2).scores(alpha)

    found, mixture = Counter(), Counter()
    gradients(Silent(), found)
    gradients(Softmax(), mixture)
    assert found == mixture
