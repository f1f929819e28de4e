"""check_operation: an operation of an edge computes, differentiates, folds and counts correctly."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

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

TASKS, EDGES, IMAGES, CHANNELS, SIZE = 2, 2, 3, 4, 4
SAME = 1e-9
SPEC = NetworkSpec(in_channels=1, stem=(4, 6), channels=4)
FOLDED = 1e-5
"""The largest difference of a folded logit, relative to an image's largest, as `metadarts.export` allows it."""


def check_operation(name: str, operation: Operation) -> None:
    """Check an operation at strides 1 and 2.

    Raises:
        AssertionError: for a wrong shape or type, derivatives of first or second order that differ from central
            differences in float64, tasks or edges that depend on each other, images with weight zero that change the
            statistics, a mask of needed edges that changes the needed outputs, initial parameters of a wrong shape, a
            negative cost, or layers of ``fold`` that give other logits.
    """
    for stride in (1, 2):
        check_shapes(name, operation, stride)
        if operation.cost(CHANNELS, stride, SIZE) < 0:
            raise AssertionError(f"{name}: a cost below 0 at stride {stride}")
        if operation.run is not None:
            for check in (_check_derivatives, _check_apart, _check_statistics, _check_needed, _check_init):
                check(name, operation, stride)
    if operation.fold is not None:
        for cell, bare in product(("normal", "reduce"), (True, False)):
            _check_fold(name, operation, replace(SPEC, cells=(cell,), affine=not bare, pool_norm=not bare))


def _drawn(name: str, operation: Operation, stride: int) -> tuple[Tensor, Params]:
    key = Key(("check_operation", name, str(stride)))
    state = torch.randn(TASKS, IMAGES, SIZE, SIZE, CHANNELS, dtype=torch.float64, generator=key.torch())
    params = {
        own: torch.randn(TASKS, EDGES, *shape, dtype=torch.float64, generator=key.child(own).torch())
        for own, shape in operation.shapes(CHANNELS, stride).items()
    }
    return state, params


def _run(
    operation: Operation,
    state: Tensor,
    params: Params,
    stride: int,
    statistics: Statistics | None = None,
    needed: Tensor | None = None,
) -> Tensor:
    if operation.run is None:
        raise AssertionError("expected an operation that runs")
    return operation.run(state, EdgeContext(params, stride, statistics or Statistics(), True, needed))


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


def _check_apart(name: str, operation: Operation, stride: int) -> None:
    """T tasks at once are T times one task, E edges E times one edge."""
    state, params = _drawn(name, operation, stride)
    together = _run(operation, state, params, stride).expand(-1, EDGES, *[-1] * 4)
    for task, edge in product(range(TASKS), range(EDGES)):
        own = {key: tensor[task, edge][None, None] for key, tensor in params.items()}
        alone = _run(operation, state[task : task + 1], own, stride)[0, 0]
        check_close(f"{name} at stride {stride}: task {task}, edge {edge} alone", together[task, edge], alone, SAME)


def _check_statistics(name: str, operation: Operation, stride: int) -> None:
    """Images that do not count are run beside those that do, and change nothing for them."""
    state, params = _drawn(name, operation, stride)
    counts = torch.arange(IMAGES).expand(TASKS, IMAGES) < IMAGES - 1
    beside = _run(operation, state, params, stride, Statistics.over(counts))
    alone = _run(operation, state[:, :-1], params, stride)
    check_close(f"{name} at stride {stride}: images beside one that does not count", beside[:, :, :-1], alone, SAME)


def _check_needed(name: str, operation: Operation, stride: int) -> None:
    """Where the output is not needed it may be anything finite; elsewhere it is what it is without the mask."""
    state, params = _drawn(name, operation, stride)
    needed = torch.arange(TASKS)[:, None] == torch.arange(EDGES)
    masked = _run(operation, state, params, stride, needed=needed)
    if not bool(torch.isfinite(masked).all()):
        raise AssertionError(f"{name} at stride {stride}: expected finite numbers where an edge is not needed")
    whole = _run(operation, state, params, stride)
    picked = [tensor.expand(-1, EDGES, *[-1] * 4)[needed] for tensor in (masked, whole)]
    check_close(f"{name} at stride {stride}: needed edges beside others", picked[0], picked[1], SAME)


def _check_init(name: str, operation: Operation, stride: int) -> None:
    for own, shape in operation.shapes(CHANNELS, stride).items():
        expected = (EDGES, *shape)
        fresh = operation.init(own, expected, Key(("check_operation", name, own)))
        if tuple(fresh.shape) != expected or fresh.dtype != torch.float32 or not bool(torch.isfinite(fresh).all()):
            raise AssertionError(f"{name}: init of {own!r}: expected finite float32 numbers {list(expected)}")


def _check_fold(name: str, operation: Operation, spec: NetworkSpec) -> None:
    """The plain layers against the network under its support set's statistics; the operation on both its edges."""
    from metadarts.export import difference, freeze, make_model  # whose files need packages that a check does not

    key = Key(("check_operation", name, "fold"))
    space = SearchSpace("one", ("none", name), nodes=1, cell_types=spec.cells)
    network = Network(spec, space, operations={"none": OPERATIONS["none"], name: operation})
    pixels = torch.randint(0, 256, (6, 1, 20, 20), dtype=torch.uint8, generator=key.torch())
    images = pixels.double()[None] / 255.0
    labels, counted = torch.arange(6)[None] % 2, torch.ones(1, 6, dtype=torch.bool)
    batch, learner = TaskBatch(images, labels, counted, images, labels, counted, 2), Learner(network, "support", "fp64")
    params = learner.start({own: tensor.double()[None] for own, tensor in network.init(key).items()}, batch)
    head = (1, 2, network.features)
    params["head.weight"] = torch.randn(head, dtype=torch.float64, generator=key.child("head").torch())
    structure, tensors = freeze(network, {own: tensor[0].detach() for own, tensor in params.items()}, images[0])
    tensors |= {"mean": torch.zeros(1, 1, 1), "std": torch.ones(1, 1, 1)}
    facts = {"classes": ["a", "b"], "image": {"channels": 1, "height": 20, "width": 20, "invert": False}}
    found = make_model(structure, tensors, facts).logits(pixels)
    apart = difference(found, learner.query_logits(params, batch)[0].detach())
    if not apart <= FOLDED:
        where = f"{name} in a {spec.cells[0]} cell"
        raise AssertionError(f"{where}: folded, its logits differ by {apart:.1e} of the largest")
