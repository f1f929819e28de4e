"""Separate images for weights and alphas within a task: two folds of the support set, which swap roles at every step.

Alphas that are fitted on the images of the weights measure which operation fits fastest; on other images, which one
generalises (the two sets of DARTS, Liu et al., ICLR 2019, equations 3 and 4, within one task). With halves A and B, a
step of even number takes the gradient of the weights from the loss of A and that of the alphas from the loss of B; a
step of odd number exchanges A and B, as cross-validation with two folds does.

All support images run through the network together, once, so the halves are not fully independent:

- batch statistics are those of both halves: the loss of one half depends on the other's pixels, not on its labels;
- a prototype head begins at the class means of all support images, and so does every task that starts from it;
- from the second step on, each half has already trained the weights when it evaluates the alphas again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, autograd

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, is_alpha

HALVES = 2


def halved(batch: Any) -> Any:
    """``batch`` with its two halves, see `metadarts.core.types.TaskBatch.in_halves`. Raises ConfigError."""
    if not hasattr(batch, "in_halves"):
        raise ConfigError(
            f"inner.alpha_images two-fold: expected tasks with a method in_halves, got {type(batch).__name__}: "
            "set inner.alpha_images to all"
        )
    return batch.in_halves()


def of_groups(losses: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """What the weights and what the alphas learn from in inner step ``step``, [T] each.

    Args:
        losses: [T, 2], of each half.

    Raises:
        ConfigError: for another shape.
    """
    if losses.dim() != HALVES or losses.shape[1] != HALVES:
        raise ConfigError(
            "inner.alpha_images two-fold: expected a support loss [T, 2], one for each of the batch's halves, got "
            f"{list(losses.shape)}: set inner.alpha_images to all, or let the loss look at the halves"
        )
    weights = step % HALVES
    return losses[:, weights], losses[:, 1 - weights]


def gradients(losses: Tensor, variables: Params, moving: Iterable[str], step: int, keep_graph: bool) -> Params:
    """Of each moving variable, by the loss of its group, see `of_groups`: one graph, gone through once for each."""
    found: Params = {}
    for own, group in zip(of_groups(losses, step), (False, True), strict=True):
        names = [name for name in moving if is_alpha(name) == group]
        wanted = [variables[name] for name in names]
        if wanted:  # the graph stays for the alphas, which come last
            found |= zip(
                names,
                autograd.grad(
                    own.sum(), wanted, create_graph=keep_graph, retain_graph=keep_graph or not group,
                    allow_unused=True, materialize_grads=True,
                ),
                strict=True,
            )  # fmt: skip
    return found
