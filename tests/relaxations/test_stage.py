"""Every loss is told its stage and its noise: inner step, progress of the run, draws that a recomputation repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import Stage, is_alpha
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.networks import Learner
from metadarts.testing import ENGINES, check_params_close, error_along, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
PROGRESS = 0.7


@dataclass(frozen=True)
class Noisy:
    """softmax((alpha + noise) / t), t falling within the task and over the run."""

    def noise(self, shape, key):
        return torch.randn(shape, dtype=torch.float64, generator=key.torch())

    def weights(self, alpha, at, noise=None):
        moved = alpha if noise is None else alpha + noise
        return (moved / (1.0 - 0.8 * at.fraction * at.progress)).softmax(-1)

    def scores(self, alpha):
        return alpha.double().softmax(-1)


def noisy_learner(**options) -> Learner:
    plain = tiny_learner(nodes=1, **options)
    return replace(plain, network=replace(plain.network, relaxation=Noisy()))


@pytest.fixture(scope="module", params=["shared", "prototype"])
def learner(request) -> Learner:
    return noisy_learner(head=request.param)


@pytest.fixture(scope="module")
def params(learner):
    return generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="module")
def batch(learner):
    drawn = learner.noise(2, INNER.steps, Key.from_seed(2))
    return random_tasks(Key.from_seed(0)).with_noise(drawn)


def gradients(learner, params, batch, inner=INNER, progress=PROGRESS, **options):
    return meta_gradient(learner, params, batch, inner, progress=progress, **options).gradients


def differ(one, other) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def test_every_task_step_and_table_has_a_draw_of_its_own(batch):
    assert sorted(batch.noise) == ["normal", "reduce"]
    draws = torch.cat([table.flatten(2) for table in batch.noise.values()]).flatten(0, 1)
    assert len({tuple(row.tolist()) for row in draws}) == len(draws) == 2 * 2 * (INNER.steps + 1)


def test_a_relaxation_that_draws_nothing_has_no_noise():
    assert tiny_learner().noise(2, 3, Key.from_seed(0)) == {}


@pytest.mark.parametrize("recomputed", [1, 2])
def test_a_recomputed_step_repeats_its_draw_and_its_temperature_bit_for_bit(learner, params, batch, recomputed):
    again = gradients(learner, params, batch, replace(INNER, checkpoint=recomputed))
    assert not differ(gradients(learner, params, batch), again)


@pytest.mark.parametrize(
    "options",
    [{"engine": ENGINES["loop"]}, {"micro_batch": 1}, {"engine": ENGINES["higher"]}],
    ids=["loop", "in parts", "higher"],
)
def test_every_engine_and_every_part_sees_the_same_stage_and_draws(learner, params, batch, options):
    check_params_close(gradients(learner, params, batch, **options), gradients(learner, params, batch), 1e-9)


def test_the_meta_gradient_equals_central_differences(learner, params, batch):
    found = gradients(learner, params, batch)

    def loss(point):
        own = {name: tensor.expand(2, *tensor.shape) for name, tensor in point.items()}
        at = Stage(0, INNER.steps, PROGRESS)
        with torch.no_grad():
            start = learner.start(own, batch, at)
            ends = adapt(learner.support_loss, start, batch, INNER, progress=PROGRESS).params
            return learner.query_loss(ends, batch, at.at(INNER.steps))[0].mean()

    weights, alphas = ([name for name in params if is_alpha(name) == wanted] for wanted in (False, True))
    assert error_along(loss, found, params, weights) < 1e-6
    assert error_along(loss, found, params, alphas) < 1e-6


@pytest.mark.parametrize("progress", [0.0, 0.3])
def test_progress_reaches_the_losses(learner, params, batch, progress):
    assert differ(gradients(learner, params, batch), gradients(learner, params, batch, progress=progress))


def test_the_query_pass_and_each_step_use_their_own_draw(learner, params, batch):
    whole = gradients(learner, params, batch)
    for step in range(INNER.steps + 1):
        other = {name: table.clone() for name, table in batch.noise.items()}
        for table in other.values():
            table[:, step] += 1.0 * torch.arange(table.shape[-1])
        assert differ(whole, gradients(learner, params, batch.with_noise(other))), step


def test_outside_training_nothing_is_drawn(learner, params, batch):
    own = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
    bare = random_tasks(Key.from_seed(0)).task(0)
    assert torch.equal(learner.features(own, bare)[0], learner.features(own, bare)[0])
    assert differ(
        {"x": learner.features(own, bare)[0]}, {"x": learner.features(own, batch.task(0), Stage(0, 2, 1.0))[0]}
    )
