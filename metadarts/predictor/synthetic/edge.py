"""One edge as a network: an operation, ReLU, the mean over positions, a linear layer on standardised features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.operations import OPERATIONS, EdgeContext, Statistics

LEAST_DEVIATION = 1e-4
MIXING = 0.3
"""Deviation of a pointwise filter's entries from the identity, of teachers and of fresh students."""


def edge_shapes(operation: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The parameters of ``operation`` on one edge, without a task axis; empty for pools and the identity."""
    return OPERATIONS[operation].shapes(channels, 1)


def output(operation: str, params: Params, images: Tensor) -> Tensor:
    """What the edge passes on: [T, N, H, W, C] of images of that shape; parameters [T, 1, ...]."""
    run = OPERATIONS[operation].run
    if run is None:
        raise ValueError(f"{operation!r} passes nothing on: give an operation")
    return run(images, EdgeContext(params, 1, Statistics(), pool_norm=True))[:, 0]


def pooled(maps: Tensor) -> Tensor:
    """[T, N, H, W, C] -> [T, N, C]: rectified, then averaged. A plain average would not see kernel sizes."""
    return F.relu(maps).mean((2, 3))


def standardised(features: Tensor) -> Tensor:
    """Features [T, N, C] with mean 0 and deviation 1 over the N images of each task."""
    centred = features - features.mean(1, keepdim=True)
    return centred / features.std(1, keepdim=True).clamp(min=LEAST_DEVIATION)


def fresh(operation: str, channels: int, tasks: int, key: Key) -> Params:
    """First weights of ``operation`` for each of T tasks: [T, 1, ...]."""
    generator, drawn = key.torch(), {}
    for name, shape in edge_shapes(operation, channels).items():
        noise = torch.randn((tasks, 1, *shape), generator=generator)
        drawn[name] = noise / shape[-1] if "depthwise" in name else torch.eye(channels) + MIXING * noise
    return drawn


def fresh_head(channels: int, ways: int, tasks: int, key: Key) -> Params:
    """First weights of the linear layer: [T, C, ways] and [T, 1, ways]."""
    weight = MIXING * torch.randn((tasks, channels, ways), generator=key.torch())
    return {"head.weight": weight, "head.bias": torch.zeros(tasks, 1, ways)}


def channels_last(images: Tensor) -> Tensor:
    """[T, N, C, H, W] -> [T, N, H, W, C]."""
    return images.permute(0, 1, 3, 4, 2).contiguous()


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of every task, [T]."""
    rows = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return rows.view_as(labels).mean(1)
