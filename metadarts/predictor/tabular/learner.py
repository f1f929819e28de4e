"""The meta-model of a table: a ranking network whose start is meta-learned over tasks, many networks at once.

Model-agnostic meta-learning (Finn et al., ICML 2017, algorithm 1 and equation 1) with learned rates per tensor and step
(Meta-SGD, Li et al., 2017). One network is trained per left-out group and seed; M of them are trained side by side on
the task axis of `metadarts.inner`: tasks never interact, so the gradient of the sum of all losses is the stack of the
networks' own gradients, as a test shows against `metadarts.meta.meta_gradient`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError, nearest
from metadarts.core.progress import Watch, tell, within
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.inner import InnerLoop, StagedLoss, adapt, rate_shapes, unstaged
from metadarts.meta import MetaState, OuterLoop
from metadarts.stats import Values

from .network import LOSSES, Rows, initial, loss, predict, rescaled, start
from .tables import Bench

TOGETHER = 24
"""Networks that are trained side by side; more need more memory and save no more time."""
AT_ONCE = 16
"""Tasks whose scores of all architectures are computed in one go."""


@dataclass(frozen=True)
class Recipe:
    """How a network is meta-trained.

    Args:
        loss: of the inner and of the outer loop, one of `metadarts.predictor.tabular.network.LOSSES`.
        mixing: whether half of what a training episode measures may come from a second task, so that few tasks become
            many; else an episode is one task's.
        others: whether the network sees what the other tasks measured of an architecture, beside its encoding.
        shots: how many architectures of a new task may be known; an episode has one of these numbers.
        width: of the two hidden layers.
        meta_steps: outer steps.
        inner_steps: steps on the known architectures.
        episodes: tasks per outer step.
        queries: further architectures per episode, on which the outer loss is measured.
        inner_rate: where the learned rates begin.
        outer_rate: Adam rate of the outer loop.
    """

    loss: str = "pairs"
    mixing: bool = True
    others: bool = True
    shots: tuple[int, ...] = (0, 5, 10, 20)
    width: int = 32
    meta_steps: int = 500
    inner_steps: int = 3
    episodes: int = 4
    queries: int = 48
    inner_rate: float = 0.1
    outer_rate: float = 1e-2

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"unknown loss {self.loss!r}: {nearest(self.loss, LOSSES)}")
        if self.meta_steps < 1 or self.episodes < 1 or self.queries < 2 or not self.shots or min(self.shots) < 0:
            raise ConfigError(
                f"recipe: expected steps and episodes of at least 1, queries of at least 2 and shots from 0 on, got "
                f"{self.meta_steps}, {self.episodes}, {self.queries} and {self.shots}"
            )

    @property
    def inner(self) -> InnerLoop:
        return InnerLoop(
            steps=self.inner_steps,
            weight_rate=self.inner_rate,
            alpha_rate=0.0,
            learn_rates=True,
            granularity="tensor-step",
            clip=10.0,
        )


@dataclass(frozen=True)
class TrainingSet:
    """What one network may learn from.

    Args:
        tasks: numbers of its training tasks; those left out are not among them.
        key: of its start and of its episodes.
    """

    tasks: tuple[int, ...]
    key: Key


@dataclass(frozen=True, eq=False)
class Pool:
    """A bench as tensors.

    Args:
        inputs: [N, F].
        scores: [N, n], see `Bench.scores`; of a task that is left out, nothing is read.
        kin: [n, n] bool, whether two tasks are held out together, so that neither may be seen when the other is new.
        by_rank: see `Bench`.
    """

    inputs: Tensor
    scores: Tensor
    kin: Tensor
    by_rank: bool

    @staticmethod
    def of(bench: Bench) -> Pool:
        count = len(bench.tasks)
        kin = torch.eye(count, dtype=torch.bool)
        smallest: dict[int, tuple[int, ...]] = {}
        for group in sorted(bench.groups.values(), key=len, reverse=True):
            smallest |= dict.fromkeys(group, group)
        for task, group in smallest.items():
            kin[task, list(group)] = True
        scores = torch.from_numpy(bench.scores().T.astype(np.float32))
        return Pool(torch.from_numpy(bench.encoding), scores, kin, bench.by_rank)

    def rows(self, numbers: Tensor, visible: Tensor, targets: Tensor, known: Tensor) -> Rows:
        """The architectures ``numbers`` [T, R] where of the other tasks ``visible`` [T, n] may be seen."""
        seen = torch.where(visible.unsqueeze(1), self.scores[numbers], 0.0)  # not a product: hidden values may be NaN
        return Rows(self.inputs[numbers], seen / _root(visible), targets, known)


@dataclass(frozen=True, eq=False)
class Learned:
    """M meta-trained networks.

    Args:
        params: [M, ...].
        rates: [M, inner steps] by name.
        visible: [M, n] bool, the training tasks of each.
        recipe: of them all.
    """

    params: Params
    rates: Params
    visible: Tensor
    recipe: Recipe


def meta_train(
    pool: Pool, training_sets: Sequence[TrainingSet], recipe: Recipe, progress: Watch | None = None
) -> Learned:
    """One network per training_set, each as if it were trained alone.

    Args:
        progress: reports the share that is done.

    Raises:
        NumericsError: when training becomes non-finite.
    """
    parts = []
    for first in range(0, len(training_sets), TOGETHER):
        chosen = training_sets[first : first + TOGETHER]
        told = within(progress, first / len(training_sets), len(chosen) / len(training_sets))
        parts.append(_train(pool, chosen, recipe, told))
    params, rates = (
        {name: torch.cat([part[side][name] for part in parts]) for name in parts[0][side]} for side in (0, 1)
    )
    return Learned(params, rates, _visible(pool, training_sets), recipe)


def _visible(pool: Pool, training_sets: Sequence[TrainingSet]) -> Tensor:
    """[M, n] bool."""
    table = torch.zeros(len(training_sets), pool.scores.shape[1], dtype=torch.bool)
    for row, training_set in enumerate(training_sets):
        table[row, list(training_set.tasks)] = True
    return table


def _train(pool: Pool, training_sets: Sequence[TrainingSet], recipe: Recipe, progress: Watch) -> tuple[Params, Params]:
    params = initial(
        [training_set.key.child("start") for training_set in training_sets],
        pool.inputs.shape[1],
        recipe.width,
        recipe.others,
    )
    state = MetaState(
        params,
        {
            name: torch.full((len(training_sets), *shape), math.log(value))
            for name, (shape, value) in rate_shapes(recipe.inner, list(params)).items()
        },
        OuterLoop(weight_rate=recipe.outer_rate, rate_rate=1e-2, clip=None, final=0.05),
    )
    draws = [_Draws(training_set, recipe, pool.scores.shape[0]) for training_set in training_sets]
    visible = _visible(pool, training_sets)
    for step in range(recipe.meta_steps):
        support, query, counts = _episodes(pool, visible, draws, recipe, step)
        gradients = meta_gradients(state.params, state.rates or {}, support, query, counts, recipe)
        state.apply(gradients, step / recipe.meta_steps)
        tell(progress, step + 1, recipe.meta_steps)
    for tensor in (state.params | state.log_rates).values():
        if not bool(torch.isfinite(tensor).all()):
            raise NumericsError("meta-training left the finite numbers: lower inner_rate or outer_rate of the recipe")
    return state.params, state.rates or {}


def meta_gradients(
    params: Params, rates: Params, support: Rows, query: Rows, visible: Tensor, recipe: Recipe
) -> Params:
    """For each of M networks the gradient of its mean query loss after adaptation, by parameter and rate [M, ...].

    Args:
        params: [M, ...].
        rates: [M, inner steps].
        support: M * E tasks, those of the first network first.
        query: of the same tasks.
        visible: [M * E] how many other tasks each may see.
    """
    networks = next(iter(params.values())).shape[0]
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in (params | rates).items()}
    each = {name: leaf.repeat_interleave(support.tasks // networks, dim=0) for name, leaf in leaves.items()}
    begun = start({name: each[name] for name in params}, support.others.shape[2], visible)
    own_rates = {name: each[name] for name in rates}
    adapted = adapt(_by(recipe), begun, support, recipe.inner, rates=own_rates).params
    total = loss(adapted, query, recipe.loss).sum() * (networks / support.tasks)
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def _by(recipe: Recipe) -> StagedLoss[Rows]:
    return unstaged(lambda params, rows: loss(params, rows, recipe.loss))


class _Draws:
    """The episodes of one network. A row may come twice in an episode, which of thousands is rare.

    Fields: ``rows`` [steps, E, S + Q], ``pairs`` [steps, E, 2] task numbers, ``shares`` [steps, E] of the first task.
    """

    def __init__(self, training_set: TrainingSet, recipe: Recipe, size: int) -> None:
        length = max(recipe.shots) + recipe.queries
        shape = (recipe.meta_steps, recipe.episodes, length + 3)
        # Raw bits are fixed by the algorithm, which numpy's integers are not; the bias of the rest is below 1e-14.
        raw = training_set.key.child("episodes").bits().random_raw(int(np.prod(shape))).reshape(shape)
        tasks = np.array(training_set.tasks)
        self.rows = torch.from_numpy((raw[..., :length] % np.uint64(size)).astype(np.int64))
        pairs = tasks[(raw[..., length : length + 2] % np.uint64(len(tasks))).astype(np.int64)]
        if not recipe.mixing:
            pairs[..., 1] = pairs[..., 0]
        self.pairs = torch.from_numpy(pairs)
        self.shares = torch.from_numpy((0.5 + 0.5 * raw[..., -1] / 2.0**64).astype(np.float32))


def _episodes(
    pool: Pool, visible: Tensor, draws: Sequence[_Draws], recipe: Recipe, step: int
) -> tuple[Rows, Rows, Tensor]:
    """Support and query rows of M * E tasks, and how many others each may see [M * E]."""
    rows, pairs, shares = (
        torch.cat([getattr(draw, name)[step] for draw in draws]) for name in ("rows", "pairs", "shares")
    )
    first, second = (pool.scores[rows, pairs[:, side : side + 1]] for side in (0, 1))
    values = shares.unsqueeze(1) * first + (1 - shares.unsqueeze(1)) * second
    seen = visible.repeat_interleave(recipe.episodes, dim=0) & ~pool.kin[pairs[:, 0]] & ~pool.kin[pairs[:, 1]]
    most = max(recipe.shots)
    shots = torch.tensor([recipe.shots[episode % len(recipe.shots)] for episode in range(recipe.episodes)])
    there = (torch.arange(most) < shots.unsqueeze(1)).repeat(len(draws), 1)
    asked = torch.ones(len(rows), recipe.queries, dtype=torch.bool)
    sides = []
    for part, known in ((slice(None, most), there), (slice(most, None), asked)):
        sides.append(pool.rows(rows[:, part], seen, rescaled(values[:, part], known, pool.by_rank), known))
    return sides[0], sides[1], seen.sum(1)


def ranked(pool: Pool, learned: Learned, networks: Sequence[int], rows: Tensor, values: Tensor) -> Values:
    """[T, N] scores of all architectures for T new tasks, each by one of the networks.

    Args:
        networks: T numbers of networks.
        rows: [T, K] which architectures are known; K may be 0.
        values: [T, K] what was measured of them, in any unit; more is better.
    """
    found = [
        _ranked(pool, learned, list(networks[i : i + AT_ONCE]), rows[i : i + AT_ONCE], values[i : i + AT_ONCE])
        for i in range(0, len(networks), AT_ONCE)
    ]
    return np.concatenate(found)


def _ranked(pool: Pool, learned: Learned, networks: list[int], rows: Tensor, values: Tensor) -> Values:
    visible = learned.visible[networks]
    known = torch.ones_like(rows, dtype=torch.bool)
    support = pool.rows(rows, visible, rescaled(values.float(), known, pool.by_rank), known)
    shared, rates = ({name: t[networks] for name, t in side.items()} for side in (learned.params, learned.rates))
    begun = start(shared, visible.shape[1], visible.sum(1))
    with torch.no_grad():
        adapted = begun
        if rows.shape[1]:
            adapted = adapt(_by(learned.recipe), begun, support, learned.recipe.inner, rates=rates).params
        return _all_scores(pool, adapted, visible)


def _all_scores(pool: Pool, params: Params, visible: Tensor) -> Values:
    tasks, size = len(visible), len(pool.inputs)
    seen = torch.where(visible.unsqueeze(1), pool.scores.unsqueeze(0), 0.0) / _root(visible)
    empty = torch.zeros(tasks, 0)
    return predict(params, Rows(pool.inputs.expand(tasks, size, -1), seen, empty, empty.bool())).double().numpy()


def _root(visible: Tensor) -> Tensor:
    """[T, 1, 1]: values of n tasks over it are of one size, whatever n."""
    return visible.sum(1).clamp(min=1).sqrt().float().view(-1, 1, 1)


def from_scratch(pool: Pool, keys: Sequence[Key], rows: Tensor, values: Tensor, steps: int, width: int) -> Values:
    """[T, N] scores of networks trained on the known architectures alone, by ``steps`` steps of Adam.

    Args:
        keys: T, of the networks' starts.
        rows: [T, K] which architectures are known.
        values: [T, K] what was measured of them.
    """
    inner = InnerLoop(steps=steps, rule="adam", weight_rate=0.01, alpha_rate=0.0, order="first")
    recipe = replace(Recipe(), loss="squared", others=False)
    visible = torch.zeros(len(keys), pool.scores.shape[1], dtype=torch.bool)
    known = torch.ones_like(rows, dtype=torch.bool)
    support = pool.rows(rows, visible, rescaled(values.float(), known, pool.by_rank), known)
    with torch.no_grad():
        begun = initial(keys, pool.inputs.shape[1], width, others=False)
        adapted = adapt(_by(recipe), begun, support, inner).params
        scores = [
            _all_scores(pool, {name: t[i : i + AT_ONCE] for name, t in adapted.items()}, visible[i : i + AT_ONCE])
            for i in range(0, len(keys), AT_ONCE)
        ]
    return np.concatenate(scores)
