"""The network that ranks architectures, its losses, and a batch of ranking tasks, all with a leading task axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params

LOSSES = ("squared", "pairs", "top")
"""Squared error of the scores; logistic loss of pairs (Burges et al., ICML 2005, "RankNet"); cross-entropy to a
distribution that prefers the best (Cao et al., ICML 2007, "ListNet")."""
SHARPNESS = 2.0
"""How strongly the targets of "top" prefer the best: their scores times this, under a softmax."""
TRUST = "trust"
"""The parameter that weighs what the other tasks measured of an architecture."""


@dataclass(frozen=True)
class Rows:
    """R architectures in each of T tasks.

    Args:
        inputs: [T, R, F] encodings.
        others: [T, R, n] what the other tasks measured, 0 where it may not be seen, over the root of how many may be.
        targets: [T, R] what this task measured, on the scale of scores.
        known: [T, R] bool, whether a row is there: tasks may have unequal numbers.
    """

    inputs: Tensor
    others: Tensor
    targets: Tensor
    known: Tensor

    @property
    def tasks(self) -> int:
        return self.inputs.shape[0]

    def task(self, index: int) -> Rows:
        """Task ``index`` alone, as a batch of one."""
        chosen = slice(index, index + 1)
        return Rows(self.inputs[chosen], self.others[chosen], self.targets[chosen], self.known[chosen])


def initial(keys: Sequence[Key], features: int, width: int, others: bool) -> Params:
    """Shared parameters of one network per key, [M, ...]; a network depends on its own key alone."""
    networks = [_network(key, features, width, others) for key in keys]
    return {name: torch.stack([network[name] for network in networks]) for name in networks[0]}


def _network(key: Key, features: int, width: int, others: bool) -> Params:
    sizes = {"first": (features, width), "second": (width, width), "last": (width, 1)}
    made: Params = {}
    for name, (fan_in, fan_out) in sizes.items():
        weight = torch.randn(fan_in, fan_out, generator=key.child(name).torch()) / math.sqrt(fan_in)
        made[f"{name}.weight"] = 0.1 * weight if name == "last" else weight
        made[f"{name}.bias"] = torch.zeros(1, fan_out)
    if others:
        made[TRUST] = torch.ones(1, 1)
    return made


def start(shared: Params, others: int, visible: Tensor) -> Params:
    """Where T tasks start: as ``shared`` [T, ...], but the one trust is given to each of the n other tasks alike.

    Args:
        others: n.
        visible: [T] how many of them may be seen: their trust then adds up to a mean.
    """
    if TRUST not in shared:
        return shared
    scaled = shared[TRUST] / visible.clamp(min=1).sqrt().view(-1, 1, 1)
    return shared | {TRUST: scaled.expand(-1, others, 1)}


def predict(params: Params, rows: Rows) -> Tensor:
    """[T, R] scores, higher for what is thought better."""
    hidden = rows.inputs
    for name in ("first", "second"):
        hidden = torch.nn.functional.silu(torch.baddbmm(params[f"{name}.bias"], hidden, params[f"{name}.weight"]))
    scores = torch.baddbmm(params["last.bias"], hidden, params["last.weight"])
    if TRUST in params:
        scores = scores + rows.others @ params[TRUST]
    return scores.squeeze(-1)


def loss(params: Params, rows: Rows, kind: str) -> Tensor:
    """[T] of the scores of the rows that are there; 0 for a task that has none. ``kind`` is one of `LOSSES`."""
    scores, weights = predict(params, rows), rows.known.to(rows.targets.dtype)
    if kind == "squared":
        return ((scores - rows.targets).square() * weights).sum(1) / weights.sum(1).clamp(min=1)
    if kind == "top":
        absent = torch.where(rows.known, 0.0, -1e9)  # not infinity: a task without rows would be NaN
        wanted = torch.softmax(SHARPNESS * rows.targets + absent, dim=1)
        found = torch.log_softmax(scores + absent, dim=1)
        return -(wanted * found * weights).sum(1)
    signs = torch.sign(rows.targets.unsqueeze(2) - rows.targets.unsqueeze(1))
    pairs = signs.clamp(min=0) * weights.unsqueeze(2) * weights.unsqueeze(1)  # each pair once, the better one first
    apart = scores.unsqueeze(2) - scores.unsqueeze(1)
    return (torch.nn.functional.softplus(-apart) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def rescaled(values: Tensor, known: Tensor, by_rank: bool) -> Tensor:
    """[T, R] measured values on the scale of scores, by what these rows alone tell; 0 where none is there.

    Args:
        values: [T, R] in any unit.
        known: [T, R] bool.
        by_rank: normal scores of the ranks among the known rows; else their standardised values.
    """
    weights = known.to(values.dtype)
    count = weights.sum(1, keepdim=True).clamp(min=1)
    if by_rank:
        ahead = torch.sign(values.unsqueeze(2) - values.unsqueeze(1)) * weights.unsqueeze(1)
        place = (ahead.sum(2) + count) / 2  # equal values share the middle of their places
        return torch.where(known, torch.special.ndtri((place / count).clamp(1e-6, 1 - 1e-6)), 0.0)
    centred = (values - (values * weights).sum(1, keepdim=True) / count) * weights
    return centred / ((centred.square().sum(1, keepdim=True) / count).sqrt() + 1e-6)
