"""check_op: a fast operator against its plain torch reference, in value and in every derivative up to the second.

Second order breaks silently: a kernel that runs inside ``backward`` without a differentiable wrapper turns MAML into
its first-order approximation without an error. These checks detect it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.rng import Key

from ._close import check_close

Op = Callable[..., Tensor]
"""Tensors and options by name -> one tensor."""

Layout = Callable[[Tensor], Tensor]
"""The same numbers, or some of them repeated, in other memory."""

FLOAT64 = 1e-11
FLOAT32 = 2e-5
UPSTREAM = "upstream"
FAST = torch.float32


@dataclass(frozen=True)
class OpCase:
    """One set of sizes and options to check an operator with.

    Args:
        id: a description of the case.
        inputs: the differentiable inputs by name, as shapes; their values are drawn from N(0, 1).
        constants: tensors that the operator reads but does not differentiate, by name, in float64.
        options: the other arguments, by name.
    """

    id: str
    inputs: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, float64, fixed by the case's id and ``name``."""
        return torch.randn(tuple(shape), dtype=torch.float64, generator=Key(("OpCase", self.id, name)).torch())


@dataclass(frozen=True)
class Setting:
    """How a case is run: what is done to its inputs, and on what the fast operator runs."""

    name: str
    device: str
    dtype: torch.dtype = torch.float64
    zero: tuple[str, slice] | None = None
    only: str | None = None
    layout: Layout = Tensor.clone
    upstream_layout: Layout = Tensor.clone
    around: Callable[[], AbstractContextManager[None]] = nullcontext


def check_op(
    fast: Op,
    reference: Op,
    cases: Sequence[OpCase],
    device: str = "cpu",
    layouts: Mapping[str, Layout] | None = None,
) -> None:
    """Check ``fast`` against ``reference`` on every case.

    For each case: the value, each gradient and each second-order gradient by name, in float64 and float32; with inputs
    of zeros, in strided memory, with axes of one element that have stride 0, with expanded upstream gradients (of the
    value and of its gradients), with one input at a time requiring a gradient, and with uninitialised memory full of
    NaN; then gradcheck and gradgradcheck.

    Args:
        fast: runs on ``device``.
        reference: plain torch, differentiated by torch; runs in float64 on the CPU.
        cases: sizes and options.
        device: where ``fast`` runs.
        layouts: further memory layouts by name, each a function of an input or an upstream gradient. It may change the
            numbers, as expanded memory must, and is also applied for ``reference``.

    Raises:
        AssertionError: naming the case, the setting, the derivative and the difference.
    """
    for case in cases:
        for setting in [*_settings(case, device), *_further(layouts or {}, device)]:
            with _said(f"[{case.id}; {setting.name}]"):
                _compare(fast, reference, case, setting)
        with _said(f"[{case.id}; finite differences]"):
            _check_numerically(fast, case, device)


def check_derivatives(fast: Op, reference: Op, case: OpCase, device: str = "cpu", dtype: torch.dtype = FAST) -> None:
    """The value and every derivative up to the second of one case, in one precision; part of what `check_op` checks.

    For interpreted kernels, for which a whole `check_op` takes minutes.

    Raises:
        AssertionError: naming the case, the derivative and the difference.
    """
    with _said(f"[{case.id}; {dtype}]"):
        _compare(fast, reference, case, Setting(str(dtype), device, dtype, around=poisoned_memory))


def _settings(case: OpCase, device: str) -> Iterator[Setting]:
    plain = Setting("float64", device)
    yield plain
    yield replace(plain, name="float32", dtype=torch.float32)
    for name in case.inputs:
        yield replace(plain, name=f"{name} all zeros", zero=(name, slice(None)))
        yield replace(plain, name=f"{name} zero in its first slice", zero=(name, slice(0, 1)))
        if len(case.inputs) > 1:
            yield replace(plain, name=f"only {name} requires a gradient", only=name)
    yield replace(plain, name="strided memory", layout=strided, upstream_layout=strided)
    yield replace(plain, name="expanded upstream gradient", upstream_layout=expanded)
    yield replace(plain, name="stride 0 along axes of one", layout=unmoving, upstream_layout=unmoving)
    yield replace(plain, name="uninitialised memory is NaN", around=poisoned_memory)


def _further(layouts: Mapping[str, Layout], device: str) -> Iterator[Setting]:
    for name, layout in layouts.items():
        yield Setting(name, device, layout=layout, upstream_layout=layout)
        yield Setting(f"{name}, float32", device, dtype=torch.float32, layout=layout, upstream_layout=layout)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, every second of a wider buffer with its axes reversed."""
    buffer = tensor.new_zeros(*reversed(tensor.shape), 2)
    view = buffer[..., 0].permute(*reversed(range(tensor.dim())))
    return view.copy_(tensor)


def expanded(tensor: Tensor) -> Tensor:
    """The first row of the last axis everywhere, in memory once: what the derivative of a sum looks like."""
    return tensor[(0,) * (tensor.dim() - 1)].clone().expand(tensor.shape)


def unmoving(tensor: Tensor) -> Tensor:
    """The same numbers; axes of one element have stride 0, as one row of an expanded tensor does, and torch calls it
    contiguous all the same.
    """
    packed = tensor.clone(memory_format=torch.contiguous_format)
    steps = [0 if size == 1 else step for size, step in zip(packed.shape, packed.stride(), strict=True)]
    return packed.as_strided(packed.shape, steps)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill memory that torch hands out uninitialised with NaN, so that reading it cannot go unseen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warn_only warns of CUDA's atomics, which are no fault of the operator
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            if not bool(torch.empty(1).isnan()):
                raise AssertionError("torch does not fill new memory: set torch.utils.deterministic's switch to True")
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def derivatives(
    op: Op, case: OpCase, inputs: Mapping[str, Tensor], upstream: Tensor, layout: Layout = Tensor.clone
) -> dict[str, Tensor]:
    """Value and derivatives by label: "y", "d x" (the pullback of ``upstream``) and "d x d w" (its derivative).

    "d all" is the derivative of all the pullbacks together, each along a direction of its own, laid out by ``layout``.
    """
    like = next(iter(inputs.values()))
    y = op(**inputs, **{name: tensor.to(like) for name, tensor in case.constants.items()}, **case.options)
    if y.dtype != like.dtype or y.device != like.device:
        raise AssertionError(f"expected a {like.dtype} result on {like.device}, got {y.dtype} on {y.device}")
    if y.shape != upstream.shape:
        raise AssertionError(f"expected shape {tuple(upstream.shape)}, got {tuple(y.shape)}")
    moving = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    first = torch.autograd.grad(y, list(moving.values()), upstream, create_graph=True)
    for name, grad in zip(moving, first, strict=True):
        if not grad.requires_grad:
            raise AssertionError(f"d {name} has no graph: second order through it would silently be first order")
    along = [layout(case.draw(f"along {name}", grad.shape).to(grad)) for name, grad in zip(moving, first, strict=True)]
    rows = {f"d {name}": ([grad], [pull]) for name, grad, pull in zip(moving, first, along, strict=True)}
    found = {"y": y} | {label: grads[0] for label, (grads, _) in rows.items()}
    sources = moving | {UPSTREAM: upstream}
    for label, (grads, pulls) in (rows | {"d all": (list(first), along)}).items():
        second = torch.autograd.grad(grads, list(sources.values()), pulls, retain_graph=True, allow_unused=True)
        for (name, source), grad in zip(sources.items(), second, strict=True):
            found[f"{label} d {name}"] = torch.zeros_like(source) if grad is None else grad
    return {label: tensor.detach() for label, tensor in found.items()}


def _compare(fast: Op, reference: Op, case: OpCase, setting: Setting) -> None:
    values = {name: case.draw(name, shape) for name, shape in case.inputs.items()}
    if setting.zero:
        values[setting.zero[0]][setting.zero[1]] = 0.0
    with torch.no_grad():
        shape = reference(**values, **case.constants, **case.options).shape
    values = {
        name: tensor.to(setting.dtype) for name, tensor in (values | {UPSTREAM: case.draw(UPSTREAM, shape)}).items()
    }

    def leaves(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        made = {}
        for name, tensor in values.items():
            layout = setting.upstream_layout if name == UPSTREAM else setting.layout
            made[name] = layout(tensor.to(device, dtype)).requires_grad_(
                setting.only in (None, name) or name == UPSTREAM
            )
        return made

    truth_at, at = leaves("cpu", torch.float64), leaves(setting.device, setting.dtype)
    truth = derivatives(reference, case, truth_at, truth_at.pop(UPSTREAM), setting.upstream_layout)
    with setting.around():
        found = derivatives(fast, case, at, at.pop(UPSTREAM), setting.upstream_layout)
    for label, expected in truth.items():
        check_close(label, found[label], expected, FLOAT32 if setting.dtype == torch.float32 else FLOAT64)


def _check_numerically(fast: Op, case: OpCase, device: str) -> None:
    """gradcheck and gradgradcheck along random directions; CUDA's atomics may change the last bits between two runs."""
    leaves = [case.draw(name, shape).to(device).requires_grad_() for name, shape in case.inputs.items()]
    constants = {name: tensor.to(device) for name, tensor in case.constants.items()}

    def call(*tensors: Tensor) -> Tensor:
        return fast(**dict(zip(case.inputs, tensors, strict=True)), **constants, **case.options)

    wobble = 0.0 if device == "cpu" else 1e-10
    try:
        gradcheck(call, leaves, nondet_tol=wobble, fast_mode=True)
        gradgradcheck(call, leaves, nondet_tol=wobble, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(str(error)) from error


@contextmanager
def _said(where: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{where} {error}") from error
