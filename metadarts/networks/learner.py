"""Losses of a network on few-shot tasks: the bridge between a network and the inner loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError, nearest
from metadarts.core.types import Params, TaskBatch, is_alpha

from .network import Network
from .primitives import Statistics

POLICIES = ("transductive", "support")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


@dataclass(frozen=True)
class Learner:
    """A network, how its batch norms see a task, and in which precision it computes.

    Args:
        network: supernet or discrete network.
        bn: "transductive": queries are normalised by the statistics of the whole query set, as T-NAS, MetaNAS and MAML
            do without saying so; "support": by the support set's statistics alone, so that a prediction does not depend
            on the other queries.
        precision: "fp32", "bf16" (convolutions and activations; parameters are kept, statistics taken and
            candidates weighed in float32) or
            "fp64".
        weights: cell kind -> [E, P] fixed mixing weights in place of the alphas' softmax. For ablations.
    """

    network: Network
    bn: str = "transductive"
    precision: str = "fp32"
    weights: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.bn not in POLICIES:
            raise ConfigError(f"unknown batch-norm policy {self.bn!r}: {nearest(self.bn, POLICIES)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}: {nearest(self.precision, PRECISIONS)}")

    def start(self, params: Params, batch: TaskBatch) -> Params:
        """Task parameters before the first step: the shared ones with a head for ``batch.ways`` classes.

        Args:
            params: shared parameters already expanded to the task axis, [T, ...].

        Returns:
            The same without `head.vector` or `head.scale`, with `head.weight` [T, ways, F] and `head.bias` [T, ways].
        """
        body = {name: tensor for name, tensor in params.items() if not name.startswith("head.")}
        if self.network.spec.head == "shared":
            weight = params["head.vector"].unsqueeze(1).expand(-1, batch.ways, -1)
            bias = params["head.bias"].unsqueeze(1).expand(-1, batch.ways)
            return body | {"head.weight": weight, "head.bias": bias}
        return body | self._prototypes(params, batch)

    def _prototypes(self, params: Params, batch: TaskBatch) -> Params:
        """The linear layer equal to a nearest-prototype rule (Snell et al., 2017, section 2.4; Proto-MAML)."""
        features = self._embed(params, batch.support_images, self._support_statistics(batch))
        classes = torch.arange(batch.ways, device=features.device)  # torch's one_hot looks at the labels
        members = (batch.support_labels.unsqueeze(-1) == classes) & batch.support_mask.unsqueeze(-1)
        members = members.to(features.dtype)
        counts = members.sum(1).unsqueeze(-1)
        means = members.mT @ features / counts.clamp(min=1.0)
        scale = params["head.scale"].view(-1, 1)
        return {"head.weight": 2.0 * scale.unsqueeze(-1) * means, "head.bias": -scale * means.square().sum(-1)}

    def support_logits(self, params: Params, batch: TaskBatch) -> Tensor:
        """[T, S, ways]."""
        return self._logits(params, batch.support_images, self._support_statistics(batch))

    def query_logits(self, params: Params, batch: TaskBatch) -> Tensor:
        """[T, Q, ways], under the learner's batch-norm policy."""
        images, statistics, first = self._query_pass(batch)
        return self._logits(params, images, statistics)[:, first:]

    def features(self, params: Params, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Feature vectors [T, S, F] and [T, Q, F] of support and query images; ``params`` needs no head."""
        images, statistics, first = self._query_pass(batch)
        support = self._embed(params, batch.support_images, self._support_statistics(batch))
        return support, self._embed(params, images, statistics)[:, first:]

    def _query_pass(self, batch: TaskBatch) -> tuple[Tensor, Statistics, int]:
        """(images, statistics, first query row). Under `support` both sets run, and the support set counts."""
        if self.bn == "transductive":
            statistics = Statistics.over(batch.query_mask) if batch.ragged else Statistics()
            return batch.query_images, statistics, 0
        mask = torch.cat([batch.support_mask, torch.zeros_like(batch.query_mask)], dim=1)
        images = torch.cat([batch.support_images, batch.query_images], dim=1)
        supports = batch.support_images.shape[1]
        return images, Statistics.over(mask, None if batch.ragged else supports), supports

    def support_loss(self, params: Params, batch: TaskBatch) -> Tensor:
        """Mean cross entropy of the support set, [T]: the inner loop's loss."""
        self._check(batch)
        return masked_loss(self.support_logits(params, batch), batch.support_labels, batch.support_mask)

    def query_loss(self, params: Params, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Mean cross entropy and accuracy of the query set, each [T]: the outer loop's loss."""
        logits = self.query_logits(params, batch)
        loss = masked_loss(logits, batch.query_labels, batch.query_mask)
        return loss, masked_accuracy(logits.detach(), batch.query_labels, batch.query_mask)

    def _support_statistics(self, batch: TaskBatch) -> Statistics:
        return Statistics.over(batch.support_mask) if batch.ragged else Statistics()

    def _check(self, batch: TaskBatch) -> None:
        if batch.ragged and not bool(batch.support_mask.any(1).all()):
            raise NumericsError("a task has an empty support set: expected at least one support image per task")

    def _embed(self, params: Params, images: Tensor, statistics: Statistics) -> Tensor:
        params, images = self._cast(params, images)
        return self._widen(self.network.embed(params, images, statistics, self._fixed(params)))

    def _logits(self, params: Params, images: Tensor, statistics: Statistics) -> Tensor:
        params, images = self._cast(params, images)
        return self._widen(self.network.logits(params, images, statistics, self._fixed(params)))

    def _cast(self, params: Params, images: Tensor) -> tuple[Params, Tensor]:
        dtype = PRECISIONS[self.precision]
        return {n: t if is_alpha(n) else t.to(dtype) for n, t in params.items()}, images.to(dtype)

    def _widen(self, tensor: Tensor) -> Tensor:
        return tensor.float() if self.precision == "bf16" else tensor

    def _fixed(self, params: Params) -> Mapping[str, Tensor] | None:
        if self.weights is None:
            return None
        like = next(iter(params.values()))
        wide = torch.promote_types(like.dtype, torch.float32)
        return {kind: table.to(like.device, wide) for kind, table in self.weights.items()}


def masked_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy over the unmasked rows of each task, [T]."""
    rows = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return torch.where(mask, rows, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def masked_accuracy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Share of unmasked rows whose highest score is the label's, [T]."""
    hits = (logits.argmax(-1) == labels) & mask
    return hits.sum(1) / mask.sum(1).clamp(min=1)
