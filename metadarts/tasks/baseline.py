"""The simplest few-shot classifier, in pixel space: a lower baseline for learned methods and a measure of a source's
difficulty."""

from __future__ import annotations

import torch
from torch import Tensor

from metadarts.core.types import TaskBatch


def nearest_class_mean(batch: TaskBatch) -> Tensor:
    """Accuracy [T] of assigning each query to the class with the nearest mean support image (squared distance).

    Padding rows count neither in the means nor in the accuracy. A class without support is never chosen.
    """
    support, query = batch.support_images.flatten(2), batch.query_images.flatten(2)
    member = torch.nn.functional.one_hot(batch.support_labels, batch.ways) * batch.support_mask.unsqueeze(-1)
    member = member.to(support.dtype)  # [T, S, N]
    counts = member.sum(1)  # [T, N]
    means = member.transpose(1, 2) @ support / counts.clamp(min=1).unsqueeze(-1)  # [T, N, D]
    distance = torch.cdist(query, means).masked_fill(counts.eq(0).unsqueeze(1), torch.inf)  # [T, Q, N]
    right = distance.argmin(-1).eq(batch.query_labels) & batch.query_mask
    return right.sum(1) / batch.query_mask.sum(1).clamp(min=1)
