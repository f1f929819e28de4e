"""A user's task and its solutions: the results of adaptation, with everything that later steps need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.export import ShippedModel, freeze, make_model
from metadarts.networks import Learner, Network
from metadarts.store.migration import migrated_finish
from metadarts.training import Config

from .input_spec import InputSpec

MOST_AT_ONCE = 64
"""Support images per inner step; more are learnt in mini-batches."""

MOST_FROZEN = 512
"""Support images whose statistics are frozen and whose class means begin the head."""

CHUNK = 256
"""Images answered at once."""

FINISHES = SUPERNET, CELL, INHERITED, RETRAINED = ("supernet", "cell", "inherited", "retrained")
"""The adapted supernet, or the adapted cell of a run that committed to one; the derived cell with the supernet's
weights and more steps; the cell retrained."""


def finish_named(name: str, among: Sequence[str] = FINISHES, is_not: str = "unknown") -> str:
    """Today's name of the finish ``name``, one of ``among``. Raises ConfigError."""
    found = migrated_finish(str(name))
    if found not in among:
        raise ConfigError(f"finish {name!r} is {is_not}; {nearest(str(name), among)}")
    return found


@dataclass(frozen=True)
class Support:
    """The labelled images that a task is learnt from.

    Args:
        form: of the images, inverted where the task needs it.
        classes: the names, by label.
        pixels: uint8 [S, C, H, W].
        labels: [S] int64.
        seed: of the choice of images where there are too many.
        device: where the task is computed; images stay on the CPU.
    """

    form: InputSpec
    classes: tuple[str, ...]
    pixels: Tensor
    labels: Tensor
    seed: int = 0
    device: str = "cpu"

    @property
    def key(self) -> Key:
        return Key.from_seed(self.seed).child("task")

    def batch(self, rows: Tensor, queries: Tensor | None = None, answers: Tensor | None = None) -> TaskBatch:
        """One task on the device: the support images ``rows``, and uint8 query images [Q, C, H, W] with labels."""
        queries = self.pixels[:1] if queries is None else queries
        answers = torch.zeros(len(queries), dtype=torch.int64) if answers is None else answers
        support, labels = self.form.floats(self.pixels[rows])[None], self.labels[rows][None]
        query, everyone = self.form.floats(queries)[None], torch.ones(1, len(answers), dtype=torch.bool)
        counted = torch.ones_like(labels, dtype=torch.bool)
        batch = TaskBatch(support, labels, counted, query, answers[None], everyone, len(self.classes), False)
        return batch.to(self.device)

    def placed(self, params: Params) -> Params:
        """``params`` on the task's device."""
        return {name: tensor.to(self.device) for name, tensor in params.items()}

    @cached_property
    def frozen(self) -> Tensor:
        """Rows of the images whose statistics are frozen: all, or `MOST_FROZEN` of them, classes alike."""
        return self.balanced(MOST_FROZEN)

    def balanced(self, most: int) -> Tensor:
        """Rows of at most ``most`` images, taken from the classes in turn, ascending; all where there are no more."""
        if len(self.labels) <= most:
            return torch.arange(len(self.labels))
        order = torch.from_numpy(self.key.child("balanced").permutation(len(self.labels)))
        labels = self.labels[order]
        turn = torch.zeros(len(order), dtype=torch.int64)
        for label in range(len(self.classes)):
            own = (labels == label).nonzero().flatten()
            turn[own] = torch.arange(len(own))
        return order[torch.sort(turn, stable=True).indices[:most]].sort().values

    def minibatch(self, step: int) -> Tensor:
        """Rows for inner step ``step``: every image once before any comes again."""
        count = len(self.labels)
        per_round = -(-count // MOST_AT_ONCE)
        round_, place = divmod(step, per_round)
        order = torch.from_numpy(self.key.child("round", round_).permutation(count))
        return order.tensor_split(per_round)[place]


@dataclass(frozen=True)
class Step:
    """One line of a history: the state after ``step`` steps.

    Args:
        step: how many steps were taken.
        loss: mean cross entropy of the support set (of at most `MOST_AT_ONCE` images of it).
        seconds: since the beginning, without evaluation on held-out images.
        accuracy: on held-out images; None without any.
    """

    step: int
    loss: float
    seconds: float
    accuracy: float | None = None


@dataclass(frozen=True)
class Solution:
    """A network that has learnt the task.

    Args:
        finish: one of `FINISHES`.
        network: the supernet or the derived cell's network.
        params: of this one task, without a task axis, on the CPU.
        history: step by step.
        kept: the step whose parameters these are: that of the lowest support loss.
    """

    finish: str
    network: Network
    params: Params
    history: tuple[Step, ...]
    kept: int

    def with_axis(self) -> Params:
        return {name: tensor.unsqueeze(0) for name, tensor in self.params.items()}


@dataclass
class Task:
    """A task and its solutions.

    Args:
        support: its support set.
        solutions: by finish.
        facts: JSON: the start, conversions, measurements.
        config: configuration of the start; defines the network.
    """

    support: Support
    solutions: dict[str, Solution] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    config: Config = field(default_factory=Config)

    def solution(self, finish: str | None = None) -> Solution:
        """The solution ``finish``; None is the first. Raises ConfigError."""
        if finish is None:
            return next(iter(self.solutions.values()))
        found = self.solutions.get(migrated_finish(finish))
        if found is None:
            raise ConfigError(f"this task was not finished as {finish!r}: {nearest(finish, self.solutions)}")
        return found

    def put_first(self, finish: str) -> None:
        """Make ``finish`` the default solution of the task."""
        self.solutions = {finish: self.solutions[finish]} | self.solutions

    def source(self, finish: str | None = None, precision: str = "fp32") -> Callable[[Tensor], Tensor]:
        """uint8 pixels [N, C, H, W] -> logits, by the network itself under the policy `support`; "fp64" for its sums
        without a float32's rounding."""
        solution = self.solution(finish)
        return lambda pixels: logits(self.support, solution.network, solution.with_axis(), pixels, precision=precision)

    def model(self, finish: str | None = None) -> ShippedModel:
        """The solution for export: statistics frozen and folded."""
        solution, support = self.solution(finish), self.support
        form = support.form
        structure, tensors = freeze(solution.network, solution.params, form.floats(support.pixels[support.frozen]))
        scale = {"mean": form.mean or (0.0,) * form.channels, "std": form.std or (1.0,) * form.channels}
        tensors |= {name: torch.tensor(values).view(-1, 1, 1) for name, values in scale.items()}
        genotype = solution.network.genotype
        facts = {
            "classes": list(support.classes),
            "image": {"channels": form.channels, "height": form.height, "width": form.width, "invert": form.invert},
            "finish": solution.finish,
            "genotype": None if genotype is None else str(genotype),
            "start": self.facts.get("start"),
            "measured": self.facts.get("measured", {}).get(solution.finish),
        }
        return make_model(structure, tensors, facts)


def logits(
    support: Support,
    network: Network,
    params: Params,
    pixels: Tensor,
    bn: str = "support",
    precision: str = "fp32",
) -> Tensor:
    """[N, classes] of uint8 pixels [N, C, H, W], computed on the task's device, on the CPU.

    Args:
        support: the task.
        network: whose parameters ``params`` [1, ...] are.
        params: of the one task.
        pixels: of the task's form.
        bn: "support", or "transductive" for statistics over all of ``pixels``.
        precision: "fp32", or "fp64" to compute in double precision.
    """
    learner, params = Learner(network, bn, precision), support.placed(params)
    parts = [pixels] if bn == "transductive" else pixels.split(CHUNK)
    with torch.no_grad():
        found = [learner.query_logits(params, support.batch(support.frozen, part))[0] for part in parts]
    return torch.cat(found).cpu()


def hits(found: Tensor, labels: Tensor) -> Tensor:
    """[N] 1.0 where the largest of logits [N, classes] is the label's, else 0.0."""
    return (found.argmax(1) == labels).double()
