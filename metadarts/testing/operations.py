"""check_operation: an operation of an edge computes, differentiates, folds and counts as everything relies on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.networks import Learner, Network, NetworkSpec
from metadarts.operations import OPERATIONS, EdgeContext, Operation, Statistics
from metadarts.spaces import SearchSpace

from ._close import check_close
from .searchspaces import check_shapes

TASKS, EDGES, CHANNELS, SIZE = 2, 2, 2, 4
FOLDED = 1e-5
"""The largest difference of a folded logit, relative to an image's largest, as `metadarts.export` allows it."""


def check_operation(name: str, operation: Operation) -> None:
    """Check an operation at strides 1 and 2.

    Raises:
        AssertionError: on a wrong shape, derivatives of first or second order that differ from central differences in
            float64, tasks that depend on one another, fresh parameters of a wrong shape, a negative cost, or layers
            written down by ``fold`` that give other logits.
    """
    for stride in (1, 2):
        check_shapes(name, operation, stride)
        if operation.run is not None:
            _check_derivatives(name, operation, stride)
            _check_tasks(name, operation, stride)
            _check_init(name, operation, stride)
        if operation.cost(CHANNELS, stride, SIZE) < 0:
            raise AssertionError(f"{name}: a cost below 0 at stride {stride}")
    if operation.fold is not None:
        for cell in ("normal", "reduce"):
            _check_fold(name, operation, cell)


def _drawn(name: str, operation: Operation, stride: int) -> tuple[Tensor, Params]:
    key = Key(("check_operation", name, str(stride)))
    state = torch.randn(TASKS, 2, SIZE, SIZE, CHANNELS, dtype=torch.float64, generator=key.torch())
    params = {
        own: torch.randn(TASKS, EDGES, *shape, dtype=torch.float64, generator=key.child(own).torch())
        for own, shape in operation.shapes(CHANNELS, stride).items()
    }
    return state, params


def _run(operation: Operation, state: Tensor, params: Params, stride: int) -> Tensor:
    if operation.run is None:
        raise AssertionError("expected an operation that runs")
    return operation.run(state, EdgeContext(params, stride, Statistics(), pool_norm=True))


def _check_derivatives(name: str, operation: Operation, stride: int) -> None:
    state, params = _drawn(name, operation, stride)
    leaves = [tensor.requires_grad_() for tensor in (state, *params.values())]

    def outputs(state: Tensor, *tensors: Tensor) -> Tensor:
        return _run(operation, state, dict(zip(params, tensors, strict=True)), stride)

    try:
        gradcheck(outputs, leaves, fast_mode=True)
        gradgradcheck(outputs, leaves, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"{name} at stride {stride}: {error}") from error


def _check_tasks(name: str, operation: Operation, stride: int) -> None:
    """T tasks at once are T times one task."""
    state, params = _drawn(name, operation, stride)
    together = _run(operation, state, params, stride)
    for task in range(TASKS):
        own = {key: tensor[task : task + 1] for key, tensor in params.items()}
        alone = _run(operation, state[task : task + 1], own, stride)
        check_close(f"{name} at stride {stride}: task {task} alone", together[task : task + 1], alone, 1e-9)


def _check_init(name: str, operation: Operation, stride: int) -> None:
    for own, shape in operation.shapes(CHANNELS, stride).items():
        fresh = operation.init(own, (EDGES, *shape), Key(("check_operation", name, own)))
        if (
            tuple(fresh.shape) != (EDGES, *shape)
            or fresh.dtype != torch.float32
            or not bool(torch.isfinite(fresh).all())
        ):
            raise AssertionError(f"{name}: init of {own!r}: expected finite float32 numbers {[EDGES, *shape]}")


def _check_fold(name: str, operation: Operation, cell: str) -> None:
    """The plain layers against the network under its support set's statistics; the operation on both its edges."""
    from metadarts.export import difference, freeze, make_model  # whose files need packages that a check does not

    key = Key(("check_operation", name, "fold"))
    table = OPERATIONS if name in OPERATIONS else OPERATIONS.plus(name, operation)
    spec = NetworkSpec(in_channels=1, stem=(4, 6), channels=4, cells=(cell,), affine=True)
    network = Network(spec, SearchSpace("one", ("none", name), nodes=1), operations=table)
    pixels = torch.randint(0, 256, (6, 1, 20, 20), dtype=torch.uint8, generator=key.torch())
    labels, learner = torch.arange(6) % 2, Learner(network, "support", precision="fp64")
    counted = torch.ones(1, 6, dtype=torch.bool)
    images = (pixels.double() / 255.0)[None]
    batch = TaskBatch(images, labels[None], counted, images, labels[None], counted, 2, False)
    shared = {own: tensor.double()[None] for own, tensor in network.init(key).items()}
    task = {own: tensor.detach() for own, tensor in learner.start(shared, batch).items()}
    task["head.weight"] = torch.randn(
        task["head.weight"].shape, dtype=torch.float64, generator=key.child("head").torch()
    )
    structure, tensors = freeze(network, {own: tensor[0] for own, tensor in task.items()}, images[0])
    tensors |= {"mean": torch.zeros(1, 1, 1), "std": torch.ones(1, 1, 1)}
    facts = {"classes": ["a", "b"], "image": {"channels": 1, "height": 20, "width": 20, "invert": False}}
    found = make_model(structure, tensors, facts).logits(pixels)
    apart = difference(found, learner.query_logits(task, batch)[0])
    if apart > FOLDED:
        raise AssertionError(f"{name} in a {cell} cell: folded, its logits differ by {apart:.1e} of the largest")
