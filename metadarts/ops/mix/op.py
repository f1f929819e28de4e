"""Mixed sum: out = sum_k p_k y_k, task and edge axes inside; exact to second order (README.md).

Equation 2 of DARTS (Liu et al., ICLR 2019) for all the edges that leave one state at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from metadarts.core.types import HALF_WIDTH
from metadarts.ops.choice import AUTO, choose
from metadarts.ops.shapes import check_shape

from . import folded, reference

OFFERED = ("cpu", "triton", "folded", "reference")


class Options(NamedTuple):
    """Whether weights of exactly 0 are passed over; whether dp is asked for; "cpu" or "triton"."""

    skips: bool
    dots: bool
    kernels: str


def mix(
    candidates: Sequence[Tensor], weights: Tensor, implementation: str = AUTO, *, skips: bool = False
) -> tuple[Tensor, ...]:
    """out_e[t] = sum_k weights[k, t, e] candidates[k][t, e].

    Args:
        candidates: K tensors [T, E, N, H, W, C], or [T, 1, N, H, W, C] if all E edges share one (pools, identity).
        weights: [K, T, E], any sign.
        implementation: "auto", "cpu", "triton", "folded" or "reference"; see `metadarts.ops.choice`.
        skips: whether a weight of exactly 0 has no derivative. CPU kernels then do not read its candidate.

    Returns:
        One [T, N, H, W, C] per edge.

    Raises:
        ConfigError: when the requested implementation cannot run on these tensors.
        ValueError: for inconsistent shapes.
    """
    check_shape("mix", "weights", weights, (len(candidates), None, None))
    tasks, edges = weights.shape[1:]
    for k, candidate in enumerate(candidates):
        shared = candidate.dim() == 6 and candidate.shape[1] == 1
        expected = (tasks, 1 if shared else edges, *candidates[0].shape[2:])
        check_shape("mix", f"candidate {k}", candidate, expected if k else (*expected[:2], *(None,) * 4))
    chosen = choose("mix", implementation, OFFERED, weights, *candidates)
    if skips and chosen != "cpu" and weights.requires_grad:
        weights = torch.where(weights == 0.0, 0.0, weights)
    if chosen == "reference":
        return reference.mix(candidates, weights)
    if chosen in ("cpu", "triton"):
        options = Options(skips, weights.requires_grad, chosen)
        return tuple(out.squeeze(1) for out in _Mix.apply(options, weights, *candidates))
    dtype = candidates[0].dtype
    if dtype in HALF_WIDTH:  # near-uniform weights differ by less than a half-width number resolves
        candidates = [candidate.float() for candidate in candidates]
    total = folded.mix([candidate.permute(2, 3, 4, 0, 1, 5) for candidate in candidates], weights)
    return total.to(dtype).permute(4, 3, 0, 1, 2, 5).unbind(0)


def _kernels(name: str) -> ModuleType:
    """The module of the kernels chosen; its `forward`, `gradient` and `second` are never mixed with another's."""
    if name == "triton":
        from . import triton_kernels

        return triton_kernels
    from . import cpu

    return cpu


class _Mix(Function):
    """(p, y_1..y_K) -> E sums: y_k [T, E or 1, N, H, W, C], sums [T, 1, N, H, W, C]."""

    @staticmethod
    def forward(options: Options, weights: Tensor, *candidates: Tensor) -> tuple[Tensor, ...]:
        sums: tuple[Tensor, ...] = _kernels(options.kernels).forward(weights, candidates, options)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        return None, *_MixGradient.apply(ctx.options, len(upstream), *upstream, *ctx.saved_tensors)


class _MixGradient(Function):
    """(g_1..g_E, p, y) -> (dp_k = <g, y_k>, dy_k = p_k g). Differentiable once more; a third derivative is refused."""

    @staticmethod
    def forward(options: Options, edges: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        upstream, weights, candidates = inputs[:edges], inputs[edges], inputs[edges + 1 :]
        d_weights, d_candidates = _kernels(options.kernels).gradient(upstream, weights, candidates, options)
        return d_weights, *d_candidates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.options, ctx.edges = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, q: Tensor | None, *v: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("mix: no third derivative; differentiate the meta-gradient no further")
        saved = ctx.saved_tensors  # once: under checkpointing each access recomputes the step
        upstream, weights, candidates = saved[: ctx.edges], saved[ctx.edges], saved[ctx.edges + 1 :]
        second = _kernels(ctx.options.kernels).second
        d_g, d_weights, d_candidates = second(q, v, upstream, weights, candidates, ctx.options)
        return None, None, *d_g, d_weights, *d_candidates
