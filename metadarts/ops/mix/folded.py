"""The mixed sum by torch's own operators, with our own derivatives: runs wherever torch does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def mix(candidates: Sequence[Tensor], weights: Tensor) -> Tensor:
    """[N, H, W, T, E, C]; arguments as in `op.mix`."""
    total: Tensor = _Mix.apply(weights, *candidates)
    return total


def _scale(weights: Tensor, like: Tensor) -> Tensor:
    """[K, T, E] -> [K, T, E, C], written out so that the passes below have a contiguous inner axis."""
    return weights[..., None].expand(*weights.shape, like.shape[-1]).to(like.dtype).contiguous()


def _sum(scales: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0] * scales[0]
    for scale, tensor in zip(scales[1:], tensors[1:], strict=True):
        total.addcmul_(tensor, scale)
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[N, H, W, T, E, C] twice -> [T, E]."""
    return (a * b).sum((0, 1, 2)).sum(-1)


def _reduce(tensor: Tensor, like: Tensor) -> Tensor:
    """Sum over the edges where ``like`` is shared by them all."""
    return tensor.sum(-2, keepdim=True) if like.shape[-2] == 1 != tensor.shape[-2] else tensor


class _Mix(Function):
    """(p, y_1..y_K) -> sum_k p_k y_k."""

    @staticmethod
    def forward(weights: Tensor, *candidates: Tensor) -> Tensor:
        return _sum(_scale(weights, candidates[0]).unbind(0), candidates)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return tuple(_MixGradient.apply(g, *ctx.saved_tensors))


class _MixGradient(Function):
    """(g, p, y) -> (dp_k = <g, y_k>, dy_k = p_k g). Differentiable once more; a third derivative is refused."""

    @staticmethod
    def forward(g: Tensor, weights: Tensor, *candidates: Tensor) -> tuple[Tensor, ...]:
        scales = _scale(weights, g).unbind(0)
        d_weights = torch.stack([_dot(g, candidate) for candidate in candidates])
        return d_weights.to(weights.dtype), *(_reduce(g * s, c) for s, c in zip(scales, candidates, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, q: Tensor | None, *v: Tensor | None) -> tuple[Any, ...]:
        """Upstream q_k of dp_k and v_k of dy_k: dg = sum p_k v_k + q_k y_k, dp_k = <v_k, g>, dy_k = q_k g."""
        if torch.is_grad_enabled():
            raise RuntimeError("mix: no third derivative; differentiate the meta-gradient no further")
        g, weights, *candidates = ctx.saved_tensors
        flowing = [(k, tensor) for k, tensor in enumerate(v) if tensor is not None]
        scales, tensors = [_scale(weights, g)[k] for k, _ in flowing], [tensor for _, tensor in flowing]
        d_weights = torch.zeros_like(weights)
        for k, tensor in flowing:
            d_weights[k] = _dot(g, tensor)
        if q is None:
            return (_sum(scales, tensors) if flowing else None), d_weights, *(None for _ in candidates)
        pulls = _scale(q, g).unbind(0)
        d_g = _sum([*scales, *pulls], [*(t.expand_as(g) for t in tensors), *candidates])
        return d_g, d_weights, *(_reduce(g * pull, c) for pull, c in zip(pulls, candidates, strict=True))
