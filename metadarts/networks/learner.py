"""Losses of a network on few-shot tasks: the bridge between a network and the inner loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import FINISHED, Params, Stage, TaskBatch, channels_last, group_of, is_alpha
from metadarts.costs import Penalty
from metadarts.operations import Statistics

from .network import Network

POLICIES = ("transductive", "support")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


@dataclass(frozen=True)
class Learner:
    """A network with its batch-norm policy and its precision.

    Args:
        network: supernet or discrete network.
        bn: "transductive": queries are normalised by the statistics of the whole query set, as T-NAS, MetaNAS and MAML
            do without stating it; "support": only by the statistics of the support set, so that a prediction does not
            depend on the other queries.
        precision: "fp32", "bf16" (convolutions and activations; parameters, statistics and mixing use float32) or
            "fp64".
        weights: cell type -> [E, P] fixed mixing weights instead of the relaxed alphas, or [T, E, P] for separate
            weights for each task of a batch. For ablations, and to evaluate many candidates in one pass.
        penalty: the term of the architecture's cost in the query loss; None for none.
    """

    network: Network
    bn: str = "transductive"
    precision: str = "fp32"
    weights: Mapping[str, Tensor] | None = None
    penalty: Penalty | None = None

    def __post_init__(self) -> None:
        if self.bn not in POLICIES:
            raise ConfigError(f"unknown batch-norm policy {self.bn!r}: {nearest(self.bn, POLICIES)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}: {nearest(self.precision, PRECISIONS)}")

    def noise(self, tasks: int, steps: int, key: Key) -> dict[str, Tensor]:
        """decision -> [T, K + 1, rows, candidates], the draws of the relaxation for ``tasks`` tasks of K ``steps``;
        empty if it draws nothing. Every decision has a separate stream."""
        found = {}
        for decision in () if self.weights else self.network.decisions:
            shape = (tasks, steps + 1, *decision.shape)
            if (drawn := self.network.relaxation.noise(shape, key.child(decision.name))) is not None:
                found[decision.name] = drawn
        return found

    def start(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> Params:
        """Task parameters before the first step: the shared ones with a head for ``batch.ways`` classes.

        Args:
            params: shared parameters already expanded to the task axis, [T, ...].

        Returns:
            The same without `head.vector` or `head.scale`, with `head.weight` [T, ways, F] and `head.bias` [T, ways];
            without the parameters of the alphas' start, with the alphas that each task starts from.
        """
        body = {name: tensor for name, tensor in params.items() if group_of(name) not in ("head", "start")}
        body |= self._starting_alphas(params, batch, at)
        if self.network.spec.head == "shared":
            weight = params["head.vector"].unsqueeze(1).expand(-1, batch.ways, -1)
            bias = params["head.bias"].unsqueeze(1).expand(-1, batch.ways)
            return body | {"head.weight": weight, "head.bias": bias}
        return body | self._prototypes({**params, **body}, batch, at)

    def _starting_alphas(self, params: Params, batch: TaskBatch, at: Stage) -> Params:
        """By parameter name; empty of a network without alphas, and of one whose tasks start from the shared ones."""
        own = {name: tensor for name, tensor in params.items() if group_of(name) in ("start", "alphas")}
        if all(group_of(name) == "alphas" for name in own):
            return {}
        like = next(iter(own.values()))
        seen = replace(batch, known_ragged=batch.ragged, support_images=batch.support_images.to(like.dtype))
        return self.network.starting_alphas(own, seen, at)

    def _prototypes(self, params: Params, batch: TaskBatch, at: Stage) -> Params:
        """The linear layer equal to a nearest-prototype rule (Snell et al., 2017, section 2.4; Proto-MAML)."""
        features = self._embed(params, batch, (batch.support_images, self._support_statistics(batch)), at)
        classes = torch.arange(batch.ways, device=features.device)  # torch's one_hot looks at the labels
        members = (batch.support_labels.unsqueeze(-1) == classes) & batch.support_mask.unsqueeze(-1)
        members = members.to(features.dtype)
        counts = members.sum(1).unsqueeze(-1)
        means = members.mT @ features / counts.clamp(min=1.0)
        scale = params["head.scale"].view(-1, 1)
        return {"head.weight": 2.0 * scale.unsqueeze(-1) * means, "head.bias": -scale * means.square().sum(-1)}

    def support_logits(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> Tensor:
        """[T, S, ways]."""
        return self._logits(params, batch, (batch.support_images, self._support_statistics(batch)), at)

    def query_logits(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> Tensor:
        """[T, Q, ways], under the learner's batch-norm policy."""
        images, statistics, first = self._query_pass(batch)
        return self._logits(params, batch, (images, statistics), at)[:, first:]

    def features(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> tuple[Tensor, Tensor]:
        """Feature vectors [T, S, F] and [T, Q, F] of support and query images; ``params`` needs no head."""
        images, statistics, first = self._query_pass(batch)
        support = self._embed(params, batch, (batch.support_images, self._support_statistics(batch)), at)
        return support, self._embed(params, batch, (images, statistics), at)[:, first:]

    def _query_pass(self, batch: TaskBatch) -> tuple[Tensor, Statistics, int]:
        """(images, statistics, first query row). Under `support` both sets run, and the support set counts."""
        if self.bn == "transductive":
            statistics = Statistics.over(batch.query_mask) if batch.ragged else Statistics()
            return batch.query_images, statistics, 0
        mask = torch.cat([batch.support_mask, torch.zeros_like(batch.query_mask)], dim=1)
        sides = [channels_last(side).movedim(-3, -1) for side in (batch.support_images, batch.query_images)]
        images = torch.cat(sides, dim=1).movedim(-1, -3)
        supports = batch.support_images.shape[1]
        return images, Statistics.over(mask, None if batch.ragged else supports), supports

    def support_loss(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> Tensor:
        """Mean cross entropy of the support set, [T]: the inner loop's loss. For a batch with halves [T, 2], one for
        each half; their images run, and are normalised, together."""
        self._check(batch)
        logits, labels = self.support_logits(params, batch, at), batch.support_labels
        if batch.halves is None:
            return masked_loss(logits, labels, batch.support_mask)
        return torch.stack([masked_loss(logits, labels, half) for half in batch.halves.unbind(1)], dim=1)

    def query_loss(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> tuple[Tensor, Tensor]:
        """Mean cross entropy, plus the penalty, and accuracy of the query set, each [T]: the outer loop's loss."""
        logits = self.query_logits(params, batch, at)
        loss = masked_loss(logits, batch.query_labels, batch.query_mask)
        if self.penalty and (weights := self._mixing(params, batch, at)):
            loss = loss + self.penalty(self.network, weights)
        return loss, masked_accuracy(logits.detach(), batch.query_labels, batch.query_mask)

    def _support_statistics(self, batch: TaskBatch) -> Statistics:
        return Statistics.over(batch.support_mask) if batch.ragged else Statistics()

    def _check(self, batch: TaskBatch) -> None:
        if batch.ragged and not bool(batch.support_mask.any(1).all()):
            raise NumericsError("a task has an empty support set: expected at least one support image per task")

    def _check_weights(self, batch: TaskBatch) -> None:
        for kind, table in (self.weights or {}).items():
            if table.dim() == 3 and len(table) != batch.tasks:
                raise ConfigError(f"weights of {kind} are for {len(table)} tasks, expected those of {batch.tasks}")

    def _embed(self, params: Params, batch: TaskBatch, seen: tuple[Tensor, Statistics], at: Stage) -> Tensor:
        """Features of the images ``seen`` under their statistics."""
        weights = self._mixing(params, batch, at)
        params, images = self._cast(params, seen[0])
        return self._widen(self.network.embed(params, images, seen[1], weights, self.network.skips_zeros))

    def _logits(self, params: Params, batch: TaskBatch, seen: tuple[Tensor, Statistics], at: Stage) -> Tensor:
        weights = self._mixing(params, batch, at)
        params, images = self._cast(params, seen[0])
        return self._widen(self.network.logits(params, images, seen[1], weights, self.network.skips_zeros))

    def _cast(self, params: Params, images: Tensor) -> tuple[Params, Tensor]:
        dtype = PRECISIONS[self.precision]
        return {n: t if is_alpha(n) else t.to(dtype) for n, t in params.items()}, images.to(dtype)

    def _widen(self, tensor: Tensor) -> Tensor:
        return tensor.float() if self.precision == "bf16" else tensor

    def _mixing(self, params: Params, batch: TaskBatch, at: Stage) -> Mapping[str, Tensor] | None:
        """cell kind -> mixing weights of this stage; None of a network without alphas."""
        if self.weights is not None:
            like = next(iter(params.values()))
            self._check_weights(batch)
            wide = torch.promote_types(like.dtype, torch.float32)
            return {kind: table.to(like.device, wide) for kind, table in self.weights.items()}
        if not self.network.mixes:
            return None
        drawn = {name: table[:, at.step] for name, table in batch.noise.items()}
        return self.network.weights_of(params, at, drawn)


def masked_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy over the unmasked rows of each task, [T]."""
    rows = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return torch.where(mask, rows, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def masked_accuracy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Share of unmasked rows whose highest score is the label's, [T]."""
    hits = (logits.argmax(-1) == labels) & mask
    return hits.sum(1) / mask.sum(1).clamp(min=1)
