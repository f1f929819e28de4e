"""Triton kernels of the mixed sum; names as in README.md.

A program has a task t, an edge e and a share of the numbers of its images, in blocks; candidates, upstream gradients
and results are tuples of tensors. What candidates shared by all edges get back is the work of programs of an edge of
their own, number E, so that no two programs add to one number.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from metadarts.ops.gpu.launch import Kernel
from metadarts.ops.gpu.tiles import power_of_two, tiling, types, wide

BYTES = 16384
"""Of all candidates' blocks together, as they are summed: four float32 each in a thread's registers."""
ROWS = 64
"""Of a block, when the work is cut as if it had rows: channels do not matter here."""


@triton.jit
def _pick(tensors, e):
    """tensors[e], of pointers, where e is known only when the kernel runs."""
    found = tensors[0]
    for i in tl.static_range(1, len(tensors)):
        found = tl.where(e == i, tensors[i], found)
    return found


@triton.jit
def _number(weights, k, t, e, tasks, edges, ACC: tl.constexpr):
    """weights[k, t, e]."""
    return tl.load(weights + (k * tasks + t) * edges + e).to(ACC)


@triton.jit
def _block(tensor, group, size, at, ACC: tl.constexpr):
    """Numbers ``at`` of a group; zero beyond its end."""
    return tl.load(tensor + group * size + at, mask=at < size, other=0.0).to(ACC)


@triton.jit
def _zeros(tensors, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """A block of zeros for each of ``tensors``."""
    found = tensors[:0]
    for _k in tl.static_range(len(tensors)):
        found = found + (tl.zeros([BLOCK], ACC),)
    return found


@triton.jit
def _shared(
    weights, upstream, d_candidates, t, program, size, tasks, edges, programs,
    SHARED: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dy_k[t] = sum_e weights[k, t, e] g_e[t] of every shared candidate."""
    for start in range(program * BLOCK, size, programs * BLOCK):
        at = start + tl.arange(0, BLOCK)
        for k in tl.static_range(len(d_candidates)):
            if SHARED >> k & 1:
                total = tl.zeros([BLOCK], ACC)
                for e in tl.static_range(len(upstream)):
                    p = _number(weights, k, t, e, tasks, edges, ACC)
                    total += p * _block(upstream[e], t, size, at, ACC)
                tl.store(d_candidates[k] + t * size + at, total, mask=at < size)


@triton.jit
def _forward(
    weights, candidates, sums, size, tasks, edges, programs,
    SHARED: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out_e[t] = sum_k p[k, t, e] y_k[t, e]."""
    e, program, t = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    out = _pick(sums, e) + t * size
    for start in range(program * BLOCK, size, programs * BLOCK):
        at = start + tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK], ACC)
        for k in tl.static_range(len(candidates)):
            group = t if SHARED >> k & 1 else t * edges + e
            total += _number(weights, k, t, e, tasks, edges, ACC) * _block(candidates[k], group, size, at, ACC)
        tl.store(out + at, total, mask=at < size)


@triton.jit
def _gradient(
    weights, upstream, candidates, d_candidates, parts, size, tasks, edges, programs,
    SHARED: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A program's part of dp[k, t, e] = <g_e, y_k>, and dy_k = p_k g_e; at e = E those that are shared."""
    e, program, t = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if SHARED:
        if e == edges:
            _shared(weights, upstream, d_candidates, t, program, size, tasks, edges, programs, SHARED, BLOCK, ACC)
            return
    g = _pick(upstream, e)
    products = _zeros(candidates, BLOCK, ACC)
    for start in range(program * BLOCK, size, programs * BLOCK):
        at = start + tl.arange(0, BLOCK)
        pulled = _block(g, t, size, at, ACC)
        longer = candidates[:0]
        for k in tl.static_range(len(candidates)):
            group = t if SHARED >> k & 1 else t * edges + e
            longer = longer + (products[k] + pulled * _block(candidates[k], group, size, at, ACC),)
            if not SHARED >> k & 1:
                p = _number(weights, k, t, e, tasks, edges, ACC)
                tl.store(d_candidates[k] + group * size + at, p * pulled, mask=at < size)
        products = longer
    for k in tl.static_range(len(candidates)):
        tl.store(parts + ((k * tasks + t) * edges + e) * programs + program, tl.sum(products[k], 0))


@triton.jit
def _second(
    q, weights, along, upstream, candidates, d_upstream, d_candidates, parts, size, tasks, edges, programs,
    FLOWS: tl.constexpr, SHARED: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dg_e = sum_k p_k v_k + q_k y_k, a part of dp_k = <v_k, g_e>, and dy_k = q_k g_e; at e = E those shared.

    Candidates of which nothing arrives (FLOWS) have no v_k.
    """
    e, program, t = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if SHARED:
        if e == edges:
            _shared(q, upstream, d_candidates, t, program, size, tasks, edges, programs, SHARED, BLOCK, ACC)
            return
    g, d_g = _pick(upstream, e), _pick(d_upstream, e) + t * size
    products = _zeros(candidates, BLOCK, ACC)
    for start in range(program * BLOCK, size, programs * BLOCK):
        at = start + tl.arange(0, BLOCK)
        pulled = _block(g, t, size, at, ACC)
        total = tl.zeros([BLOCK], ACC)
        longer = candidates[:0]
        for k in tl.static_range(len(candidates)):
            group = t if SHARED >> k & 1 else t * edges + e
            pull = _number(q, k, t, e, tasks, edges, ACC)
            total += pull * _block(candidates[k], group, size, at, ACC)
            product = products[k]
            if FLOWS >> k & 1:
                v = _block(along[k], group, size, at, ACC)
                total += _number(weights, k, t, e, tasks, edges, ACC) * v
                product += v * pulled
            longer = longer + (product,)
            if not SHARED >> k & 1:
                tl.store(d_candidates[k] + group * size + at, pull * pulled, mask=at < size)
        products = longer
        tl.store(d_g + at, total, mask=at < size)
    for k in tl.static_range(len(candidates)):
        tl.store(parts + ((k * tasks + t) * edges + e) * programs + program, tl.sum(products[k], 0))


_FORWARD, _GRADIENT = Kernel(_forward, "mix.forward"), Kernel(_gradient, "mix.gradient")
_SECOND = Kernel(_second, "mix.second")


class _Plan(NamedTuple):
    """Sizes, how they are cut, which candidates are shared (bit k), and the constants that all kernels share."""

    tasks: int
    edges: int
    size: int
    programs: int
    shared: int
    constants: dict[str, Any]
    dtype: torch.dtype

    @classmethod
    def of(cls, weights: Tensor, candidates: Sequence[Tensor]) -> _Plan:
        tasks, edges = weights.shape[1:]
        size = candidates[0][0, 0].numel()
        shared = sum(1 << k for k, y in enumerate(candidates) if y.shape[1] != edges)
        dtype = functools.reduce(torch.promote_types, (y.dtype for y in candidates), weights.dtype)
        row = max(2, BYTES // (power_of_two(len(candidates), 8) * wide(dtype).itemsize * ROWS))
        cut = tiling(tasks * edges, -(-size // row), row, weights.device)
        constants = {"SHARED": shared, "BLOCK": cut.pixels * row, "ACC": types(dtype)["ACC"], "num_warps": cut.warps}
        return cls(tasks, edges, size, cut.programs, shared, constants, dtype)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Edges first: programs that read the same block of a shared candidate run side by side."""
        return self.edges, self.programs, self.tasks

    @property
    def longer_grid(self) -> tuple[int, int, int]:
        """With programs for what shared candidates get back."""
        return self.edges + (self.shared != 0), self.programs, self.tasks

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.size, self.tasks, self.edges, self.programs

    def parts(self, weights: Tensor) -> Tensor:
        """[K, T, E, programs]: each program's part of dp."""
        return weights.new_empty(*weights.shape, self.programs, dtype=wide(self.dtype))


def _joined(parts: Tensor, like: Tensor) -> Tensor:
    """dp [K, T, E] from its parts."""
    return (parts.sum(-1) if parts.shape[-1] > 1 else parts[..., 0]).to(like.dtype)


def _packed(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _like(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


def forward(weights: Tensor, candidates: Sequence[Tensor], options: Any) -> tuple[Tensor, ...]:
    """E tensors [T, 1, N, H, W, C]; arguments as in `op._Mix`. All is read and computed, whatever ``options`` allow."""
    weights, candidates = weights.contiguous(), _packed(candidates)
    plan, like = _Plan.of(weights, candidates), candidates[0]
    sums = tuple(like.new_empty(like.shape[0], 1, *like.shape[2:]) for _ in range(plan.edges))
    _FORWARD(plan.grid, weights, candidates, sums, *plan.sizes, **plan.constants)
    return sums


def gradient(
    upstream: Sequence[Tensor], weights: Tensor, candidates: Sequence[Tensor], options: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(dp, dy) for upstream gradients [T, 1, N, H, W, C], one per edge."""
    weights, candidates, upstream = weights.contiguous(), _packed(candidates), _packed(upstream)
    plan = _Plan.of(weights, candidates)
    d_candidates, parts = _like(candidates), plan.parts(weights)
    _GRADIENT(plan.longer_grid, weights, upstream, candidates, d_candidates, parts, *plan.sizes, **plan.constants)
    return _joined(parts, weights), d_candidates


def second(
    q: Tensor | None, v: Sequence[Tensor | None], upstream: Sequence[Tensor], weights: Tensor,
    candidates: Sequence[Tensor], options: Any,
) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
    """(dg, dp, dy) for upstream q of dp and v of dy; without q there is no dy."""
    pulled = q is not None
    q = torch.zeros_like(weights) if q is None else q.contiguous()
    weights, candidates, upstream = weights.contiguous(), _packed(candidates), _packed(upstream)
    plan = _Plan.of(weights, candidates)
    flows = sum(1 << k for k, tensor in enumerate(v) if tensor is not None)
    along = tuple(y if tensor is None else tensor.contiguous() for tensor, y in zip(v, candidates, strict=True))
    d_upstream, d_candidates, parts = _like(upstream), _like(candidates), plan.parts(weights)
    _SECOND(
        plan.longer_grid, q, weights, along, upstream, candidates, d_upstream, d_candidates, parts, *plan.sizes,
        FLOWS=flows, **plan.constants,
    )  # fmt: skip
    return d_upstream, _joined(parts, weights), d_candidates if pulled else (None,) * len(candidates)
