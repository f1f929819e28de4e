"""Three meta-gradient loops as careful users of higher, torch and learn2learn write them, one task after the other.

Each adapts a copy of the parameters by ``steps`` of SGD on a task's support set, weights and alphas together from one
backward pass but each at its own rate, and returns the gradient of the mean query loss over the tasks: through the
inner steps when ``exact``, at the adapted parameters otherwise (first-order MAML). Finn et al., ICML 2017, equation 1.
A task's graph is freed before the next task starts.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metadarts.core.types import TaskBatch, is_alpha


@dataclass(frozen=True)
class MetaStep:
    """What one meta-step gives.

    Args:
        loss: mean query loss over the tasks, after adaptation.
        gradients: the meta-gradient by parameter name, each in the parameter's shape.
    """

    loss: float
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """One task without its padding rows: images [S or Q, C, H, W], labels [S or Q]."""

    support_images: Tensor
    support_labels: Tensor
    query_images: Tensor
    query_labels: Tensor


def tasks_of(batch: TaskBatch) -> Iterator[Task]:
    """The tasks of ``batch`` one by one."""
    for index in range(batch.tasks):
        support, query = batch.support_mask[index], batch.query_mask[index]
        yield Task(
            support_images=batch.support_images[index][support],
            support_labels=batch.support_labels[index][support],
            query_images=batch.query_images[index][query],
            query_labels=batch.query_labels[index][query],
        )


def rate_of(name: str, weight_rate: float, alpha_rate: float) -> float:
    """The inner learning rate of the parameter ``name``."""
    return alpha_rate if is_alpha(name) else weight_rate


def collect(network: nn.Module, loss: float) -> MetaStep:
    """The gradients that the tasks' backward passes summed into ``network``, taken out of it."""
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in network.named_parameters()
    }
    network.zero_grad(set_to_none=True)
    return MetaStep(loss, gradients)


# ------------------------------------------------------------------------------------------------------------ higher


def inner_sgd(network: nn.Module, weight_rate: float, alpha_rate: float) -> torch.optim.SGD:
    """SGD over ``network`` with one parameter group for the weights and one for the alphas, where it has any."""
    weights = [parameter for name, parameter in network.named_parameters() if not is_alpha(name)]
    alphas = [parameter for name, parameter in network.named_parameters() if is_alpha(name)]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": weight_rate}]
    if alphas:
        groups.append({"params": alphas, "lr": alpha_rate})
    return torch.optim.SGD(groups)


def higher_meta_gradient(
    network: nn.Module, batch: TaskBatch, *, steps: int, weight_rate: float, alpha_rate: float, exact: bool
) -> MetaStep:
    """The loop of higher's MAML example (Grefenstette et al., 2019), extended by two learning rates.

    With ``track_higher_grads=False`` higher cuts the adapted parameters off from the initial ones, so the first-order
    gradient is taken at the adapted parameters and added to the initial ones by hand.
    """
    higher = importlib.import_module("higher")
    network.zero_grad(set_to_none=True)
    optimizer = inner_sgd(network, weight_rate, alpha_rate)
    total = 0.0
    for task in tasks_of(batch):
        context = higher.innerloop_ctx(network, optimizer, copy_initial_weights=False, track_higher_grads=exact)
        with context as (adapted, inner):
            for _ in range(steps):
                inner.step(F.cross_entropy(adapted(task.support_images), task.support_labels))
            query_loss = F.cross_entropy(adapted(task.query_images), task.query_labels)
            if exact:
                torch.autograd.backward(query_loss / batch.tasks)
            else:
                add_first_order(network, query_loss / batch.tasks, list(adapted.parameters()))
            total += query_loss.item()
    return collect(network, total / batch.tasks)


def add_first_order(network: nn.Module, loss: Tensor, adapted: list[Tensor]) -> None:
    """Add the gradient of ``loss`` at the adapted parameters to ``.grad`` of the initial ones, in the same order."""
    gradients = torch.autograd.grad(loss, adapted)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


# --------------------------------------------------------------------------------------------------- functional_call


def functional_meta_gradient(
    network: nn.Module, batch: TaskBatch, *, steps: int, weight_rate: float, alpha_rate: float, exact: bool
) -> MetaStep:
    """A loop by hand over `torch.func.functional_call`.

    Without ``create_graph`` the inner gradients are constants, so the backward pass through the chain of updates adds
    the gradient at the adapted parameters to the initial ones: first-order MAML with no further code.
    """
    network.zero_grad(set_to_none=True)
    initial = dict(network.named_parameters())
    rates = [rate_of(name, weight_rate, alpha_rate) for name in initial]
    total = 0.0
    for task in tasks_of(batch):
        fast: dict[str, Tensor] = dict(initial)
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(network, fast, task.support_images), task.support_labels)
            gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=exact)
            moves = zip(fast.items(), rates, gradients, strict=True)
            fast = {name: parameter - rate * gradient for (name, parameter), rate, gradient in moves}
        query_loss = F.cross_entropy(functional_call(network, fast, task.query_images), task.query_labels)
        torch.autograd.backward(query_loss / batch.tasks)
        total += query_loss.item()
    return collect(network, total / batch.tasks)


# ------------------------------------------------------------------------------------------------------- learn2learn


def import_learn2learn() -> Any:
    """The learn2learn module. Raises ImportError with the way to install it when it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its vision and gym parts warn at import; nothing here uses them
            return importlib.import_module("learn2learn")
    except ImportError as error:
        raise ImportError(
            f"the learn2learn peer needs learn2learn 0.2.0, but importing it failed: {error}. Install it with "
            'CYTHON_FORCE_REGEN=1 pip install --no-deps --use-pep517 --config-settings="--build-option=build_ext" '
            "learn2learn==0.2.0 and then pip install gym requests scipy tqdm, or run another peer"
        ) from error


def learn2learn_meta_gradient(
    network: nn.Module, batch: TaskBatch, *, steps: int, weight_rate: float, alpha_rate: float, exact: bool
) -> MetaStep:
    """`learn2learn.algorithms.MAML` unrolled into its own parts, since that class knows one learning rate only."""
    l2l = import_learn2learn()
    network.zero_grad(set_to_none=True)
    rates = [rate_of(name, weight_rate, alpha_rate) for name, _ in network.named_parameters()]
    total = 0.0
    for task in tasks_of(batch):
        learner = l2l.clone_module(network)
        for _ in range(steps):
            loss = F.cross_entropy(learner(task.support_images), task.support_labels)
            gradients = torch.autograd.grad(loss, list(learner.parameters()), create_graph=exact)
            updates = [-rate * gradient for rate, gradient in zip(rates, gradients, strict=True)]
            l2l.update_module(learner, updates=updates)
        query_loss = F.cross_entropy(learner(task.query_images), task.query_labels)
        torch.autograd.backward(query_loss / batch.tasks)
        total += query_loss.item()
    return collect(network, total / batch.tasks)


LOOPS: dict[str, Callable[..., MetaStep]] = {
    "higher": higher_meta_gradient,
    "functional_call": functional_meta_gradient,
    "learn2learn": learn2learn_meta_gradient,
}
"""The loops by name; all have the signature (network, batch, *, steps, weight_rate, alpha_rate, exact)."""
