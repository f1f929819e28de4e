"""check_alpha_start: alphas of tasks that can be differentiated twice, each task's own, in every phase of a run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.rng import Key
from metadarts.core.types import FIXED, Params, Stage, TaskBatch, batched
from metadarts.networks import AlphaStart, AlphaStartContext
from metadarts.spaces import Decision

from .tiny import random_tasks

TABLES = {"normal": (3, 4), "reduce": (2, 5)}
TASKS = 3
PHASES = (0.0, 0.3, 1.0)


def check_alpha_start(start: AlphaStart, *, channels: int = 1, domains: int = 3) -> None:
    """Check a start of the alphas at the beginning, within and at the end of a run.

    Args:
        channels: of the images it is given.
        domains: of the tasks it is given; 0 for tasks that do not tell theirs.

    Raises:
        AssertionError: for parameters that are not float32 of the shapes said or not determined by their key; for fixed
            ones that it prepares under other names or shapes; for alphas of a wrong shape or type, that depend on other
            tasks, on the query images, on padding or on the order of the support images; for tensors that are made
            numbers, as a recorded GPU step may not; for derivatives of first or second order that differ from central
            differences, or a gradient of a fixed parameter.
    """
    key = Key(("check_alpha_start",))
    decisions = tuple(Decision(name, name, rows, tuple("abcdef"[:columns])) for name, (rows, columns) in TABLES.items())
    own = _initial(start, decisions, channels, key)
    batch = _tasks(key, channels, domains)
    own = {name: _moved(name, tensor, key) for name, tensor in _prepared(start, own, batch).items()}
    shared = {
        name: torch.randn(shape, dtype=torch.float64, generator=key.child("shared", name).torch())
        for name, shape in TABLES.items()
    }
    for progress in PHASES:
        at = Stage(progress=progress)
        found = _alphas(start, shared, own, batch, at)
        _check_same(
            found,
            _alphas(start, shared, own, batch, Stage(progress=torch.tensor(progress, dtype=torch.float64))),
            "a device's progress",
        )
        _check_same(found, _alphas(start, shared, own, _turned(batch), at), "another order of the support images")
        _check_same(found, _alphas(start, shared, own, _of_other_queries(batch), at), "other query images")
        padded = _alphas(start, shared, own, _padded(batch, 0.0), at)
        _check_same(padded, _alphas(start, shared, own, _padded(batch, 9.0), at), "other images where there is padding")
        _check_device(start, shared, own, batch, at)
        for task in range(TASKS):
            alone = _alphas(start, shared, own, batch.task(task), at)
            _check_same({name: table[task : task + 1] for name, table in found.items()}, alone, "a task alone")
        _check_derivatives(start, shared, own, batch, at)


def _initial(start: AlphaStart, decisions: tuple[Decision, ...], channels: int, key: Key) -> Params:
    own = {}
    for name, shape in start.shapes(decisions, channels).items():
        first, again = (start.init(name, tuple(shape), key.child("init", name)) for _ in range(2))
        if tuple(first.shape) != tuple(shape) or first.dtype != torch.float32:
            raise AssertionError(
                f"init of {name}: expected float32 {tuple(shape)}, got {first.dtype} {tuple(first.shape)}"
            )
        if not torch.equal(first, again):
            raise AssertionError(f"init of {name}: expected the same values for the same key")
        own[name] = first.double()
    return own


def _prepared(start: AlphaStart, own: Params, batch: TaskBatch) -> Params:
    fixed = start.prepare(own, [batch])
    for name, tensor in fixed.items():
        if not name.startswith(FIXED) or name not in own or tensor.shape != own[name].shape:
            raise AssertionError(
                f"prepare: expected fixed parameters of the shapes said, got {name} {tuple(tensor.shape)}"
            )
    return own | {name: tensor.double() for name, tensor in fixed.items()}


def _moved(name: str, tensor: Tensor, key: Key) -> Tensor:
    """A parameter as it is after some learning, at a generic point."""
    if name.startswith(FIXED):
        return tensor
    return tensor + 0.3 * torch.randn(tensor.shape, dtype=tensor.dtype, generator=key.child("moved", name).torch())


def _tasks(key: Key, channels: int, domains: int) -> TaskBatch:
    batch = random_tasks(key, tasks=TASKS, channels=channels)
    return replace(batch, domain=torch.arange(TASKS) % domains) if domains else batch


def _turned(batch: TaskBatch) -> TaskBatch:
    parts = {f"support_{part}": getattr(batch, f"support_{part}").flip(1) for part in ("images", "labels", "mask")}
    return replace(batch, known_ragged=False, **parts)


def _of_other_queries(batch: TaskBatch) -> TaskBatch:
    labels = (batch.query_labels + 1) % batch.ways
    return replace(batch, query_images=batch.query_images + 1.0, query_labels=labels)


def _padded(batch: TaskBatch, pixel: float) -> TaskBatch:
    """The last support image of each task is padding of this brightness."""
    mask, images = batch.support_mask.clone(), batch.support_images.clone()
    mask[:, -1], images[:, -1] = False, pixel
    labels = batch.support_labels.masked_fill(~mask, 0)
    return replace(batch, known_ragged=True, support_images=images, support_mask=mask, support_labels=labels)


def _check_device(start: AlphaStart, shared: Params, own: Params, batch: TaskBatch, at: Stage) -> None:
    """On the meta device no tensor has a number."""
    tables, parts = ({name: tensor.to("meta") for name, tensor in params.items()} for params in (shared, own))
    there = at._replace(progress=torch.tensor(at.progress, device="meta"))
    try:
        _alphas(start, tables, parts, batch.to("meta"), there, finite=False)
    except (RuntimeError, NotImplementedError) as error:
        raise AssertionError(
            f"alphas at {at}: expected tensors of one device, and no tensor (progress is one) made a number: {error}"
        ) from error


def _alphas(start: AlphaStart, shared: Params, own: Params, batch: TaskBatch, at: Stage, finite: bool = True) -> Params:
    found = start.alphas(AlphaStartContext(batched(shared, batch.tasks), batched(own, batch.tasks), batch, at))
    if found.keys() != shared.keys():
        raise AssertionError(f"alphas: expected tables {', '.join(shared)}, got {', '.join(found)}")
    for name, table in found.items():
        if tuple(table.shape) != (batch.tasks, *TABLES[name]) or table.dtype != shared[name].dtype:
            raise AssertionError(
                f"alphas {name}: expected {shared[name].dtype} {(batch.tasks, *TABLES[name])}, got {table.dtype} "
                f"{tuple(table.shape)}"
            )
        if finite and not bool(torch.isfinite(table).all()):
            raise AssertionError(f"alphas {name}: expected finite numbers")
    return found


def _check_same(expected: Params, found: Params, why: str) -> None:
    for name, table in expected.items():
        if not torch.allclose(found[name], table, rtol=1e-9, atol=1e-12):
            raise AssertionError(
                f"alphas {name}: expected the same for {why}, off by {(found[name] - table).abs().max():g}"
            )


def _check_derivatives(start: AlphaStart, shared: Params, own: Params, batch: TaskBatch, at: Stage) -> None:
    learnt = [name for name in own if not name.startswith(FIXED)]
    fixed = {name: own[name].clone().requires_grad_() for name in own if name not in learnt}
    leaves = [tensor.clone().requires_grad_() for tensor in (*shared.values(), *(own[name] for name in learnt))]

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        here = dict(zip((*shared, *learnt), tensors, strict=True))
        parts = {name: here[name] for name in shared}, {name: here[name] for name in learnt}
        return tuple(_alphas(start, parts[0], fixed | parts[1], batch, at).values())

    for check, order in ((gradcheck, "first"), (gradgradcheck, "second")):
        try:
            check(outputs, leaves, fast_mode=True)
        except RuntimeError as error:
            raise AssertionError(f"derivatives of {order} order at {at}: {error}") from error
    total = torch.stack([table.sum() for table in outputs(*leaves)]).sum()
    moved = torch.autograd.grad(total, list(fixed.values()), allow_unused=True) if fixed else ()
    if any(found is not None and bool(found.any()) for found in moved):
        raise AssertionError("a fixed parameter has a gradient: detach it")
