"""Tasks of noise and networks of a few thousand weights, for numerical checks without learning."""

from __future__ import annotations

from typing import Any

import torch

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, is_alpha
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.spaces import darts


def random_tasks(
    key: Key,
    *,
    tasks: int = 2,
    ways: int = 3,
    shots: int = 2,
    queries: int = 2,
    channels: int = 1,
    size: int = 12,
    dtype: torch.dtype = torch.float64,
) -> TaskBatch:
    """``tasks`` tasks whose images are drawn from N(0, 1): ``shots`` support and ``queries`` query images per class."""
    sides: dict[str, Any] = {}
    for side, count in (("support", shots * ways), ("query", queries * ways)):
        shape, generator = (tasks, count, channels, size, size), key.child(side).torch()
        sides[f"{side}_images"] = torch.randn(shape, dtype=dtype, generator=generator)
        sides[f"{side}_labels"] = (torch.arange(count) % ways).repeat(tasks, 1)
        sides[f"{side}_mask"] = torch.ones(tasks, count, dtype=torch.bool)
    return TaskBatch(**sides, ways=ways)


def tiny_learner(*, bn: str = "transductive", nodes: int = 2, precision: str = "fp64", **spec: Any) -> Learner:
    """A DARTS supernet of two cells for one-channel images; ``spec`` are further arguments of `NetworkSpec`."""
    settings: dict[str, Any] = {"in_channels": 1, "channels": 4, "stem": (4, 6)} | spec
    return Learner(supernet(darts(nodes=nodes), NetworkSpec(**settings)), bn=bn, precision=precision)


def generic_params(learner: Learner, key: Key) -> Params:
    """Float64 parameters at a generic point: no norm is the identity, alphas differ, prototype logits are mild."""
    params = {}
    for name, tensor in learner.network.init(key).items():
        tensor = tensor.double()
        noise = torch.randn(tensor.shape, dtype=torch.float64, generator=key.child("noise", name).torch())
        if is_alpha(name) or ".norm" in name:
            tensor = tensor + 0.3 * noise
        params[name] = torch.full_like(tensor, 0.1) if name == "head.scale" else tensor
    return params
