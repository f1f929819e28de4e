"""Separate images for weights and alphas: on a loss with a closed form, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop, adapt
from metadarts.testing import ENGINES

INNER = InnerLoop(steps=3, weight_rate=0.1, alpha_rate=0.3, alpha_images="two-fold")


def draw(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("two-fold", name)).torch())


@dataclass(frozen=True)
class Targets:
    """T tasks of two halves: reach a point of each [T, 2, 3]."""

    points: torch.Tensor
    cut: bool = False

    @property
    def tasks(self) -> int:
        return len(self.points)

    def task(self, index: int) -> Targets:
        return Targets(self.points[index : index + 1], self.cut)

    def in_halves(self) -> Targets:
        return replace(self, cut=True)


def bowls(params, batch, at=None):
    """0.5 |x + 2 y - point|^2 of each half [T, 2], x the weights and y the alphas; their mean [T] of an uncut batch."""
    reached = params["x"] + 2.0 * params["alphas.y"] if "alphas.y" in params else params["x"]
    losses = 0.5 * (reached.unsqueeze(1) - batch.points).square().sum(2)
    return losses if batch.cut else losses.mean(1)


TASKS = Targets(draw("points", 4, 2, 3))
START = {"x": draw("x", 4, 3), "alphas.y": draw("y", 4, 3)}


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_weights_learn_from_one_half_and_alphas_from_the_other_in_turn(engine, order):
    start = {name: tensor.clone().requires_grad_() for name, tensor in START.items()}
    result = adapt(bowls, start, TASKS, replace(INNER, order=order), engine=ENGINES[engine])
    x, y = START["x"], START["alphas.y"]
    losses = []
    for step in range(3):
        reached, first = x + 2.0 * y, step % 2
        losses.append(0.25 * (reached.unsqueeze(1) - TASKS.points).square().sum((1, 2)))
        x, y = x - 0.1 * (reached - TASKS.points[:, first]), y - 0.6 * (reached - TASKS.points[:, 1 - first])
    torch.testing.assert_close(result.params["x"], x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.params["alphas.y"], y, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.losses, torch.stack(losses), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("checkpoint", [0, 3])
def test_each_batch_of_its_own_is_cut_too(checkpoint):
    parts = [Targets(draw(f"part {step}", 4, 2, 3)) for step in range(3)]
    start = {name: tensor.clone().requires_grad_() for name, tensor in START.items()}
    result = adapt(bowls, start, TASKS, replace(INNER, checkpoint=checkpoint), batches=parts.__getitem__)
    x, y = START["x"], START["alphas.y"]
    for step, part in enumerate(parts):
        reached, first = x + 2.0 * y, step % 2
        x, y = x - 0.1 * (reached - part.points[:, first]), y - 0.6 * (reached - part.points[:, 1 - first])
    torch.testing.assert_close(result.params["x"], x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.params["alphas.y"], y, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("recomputed", [0, 1, 3])
def test_one_evaluation_of_the_loss_serves_both_halves(recomputed):
    calls = []

    def counted(params, batch, at=None):
        calls.append(at)
        return bowls(params, batch)

    start = {name: tensor.clone().requires_grad_() for name, tensor in START.items()}
    ends = adapt(counted, start, TASKS, replace(INNER, checkpoint=recomputed)).params
    assert len(calls) == 3
    torch.autograd.grad(sum(end.sum() for end in ends.values()), list(start.values()))
    assert len(calls) == 3 + recomputed


class Single(Targets):
    """Tasks that cannot be cut, as those of one shot."""

    def in_halves(self):
        raise ConfigError("one image per class")


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("given", [{"alpha_rate": 0.0}, {"steps": 0}, {}], ids=["alphas stay", "no step", "no alphas"])
def test_where_no_alphas_move_the_weights_learn_from_all_images(engine, given):
    start, tasks = START if given else {"x": START["x"]}, Single(TASKS.points)
    inner = replace(INNER, **given)
    found = adapt(bowls, start, tasks, inner, engine=ENGINES[engine])
    expected = adapt(bowls, start, tasks, replace(inner, alpha_images="all"), engine=ENGINES[engine])
    assert torch.equal(found.losses, expected.losses)
    assert all(torch.equal(found.params[name], end) for name, end in expected.params.items())


@pytest.mark.parametrize("engine", list(ENGINES))
def test_alphas_alone_take_turns_too(engine):
    """Even steps learn from the second half: the first is the weights', which stay."""
    ends = adapt(bowls, START, TASKS, replace(INNER, steps=1, weight_rate=0.0), engine=ENGINES[engine]).params
    reached = START["x"] + 2.0 * START["alphas.y"]
    torch.testing.assert_close(ends["alphas.y"], START["alphas.y"] - 0.6 * (reached - TASKS.points[:, 1]))
    assert torch.equal(ends["x"], START["x"])


def test_tasks_without_halves_are_refused():
    with pytest.raises(ConfigError, match="one image per class"):
        adapt(bowls, START, Single(TASKS.points), INNER)

    class Whole:
        tasks = 4

    with pytest.raises(ConfigError, match=r"expected tasks with a method in_halves, got Whole: .* to all"):
        adapt(bowls, START, Whole(), INNER)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_loss_that_ignores_the_halves_is_refused(engine):
    with pytest.raises(ConfigError, match=r"expected a support loss \[T, 2\], .*got \[[14]\]: set inner.alpha_images"):
        adapt(lambda *given: bowls(*given).mean(1), START, TASKS, INNER, engine=ENGINES[engine])


def test_values_and_facts():
    with pytest.raises(ConfigError, match="alpha_images 'two_fold' is unknown; did you mean 'two-fold'"):
        InnerLoop(alpha_images="two_fold")
    assert "alpha_images" not in InnerLoop().facts
    assert INNER.facts["alpha_images"] == "two-fold"
