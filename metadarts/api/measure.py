"""What is to be known of a task's solutions: accuracy with intervals, gaps, size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metadarts.export import Model

from .learn import HeldOut
from .task import Solution, Task, logits


def hits(found: Tensor, labels: Tensor) -> Tensor:
    """[N] 1.0 where the largest logit is the label's, else 0.0."""
    return (found.argmax(1) == labels).double()


def mean_and_interval(values: Tensor) -> tuple[float, float]:
    """Mean over images and half a 95 % interval: 1.96 standard errors; infinite below two images."""
    count = len(values)
    return float(values.mean()), 1.96 * float(values.std()) / math.sqrt(count) if count > 1 else math.inf


def measured(task: Task, solution: Solution, held_out: HeldOut) -> tuple[dict[str, Any], Tensor]:
    """The accuracy of a solution on held-out images, under both policies of batch norm; and its hits [N].

    Returns:
        "accuracy" and "interval95" (as shipped: the support set's statistics), "transductive" (those of the held-out
        images themselves), "before" (after no step), "images". The interval of a single image is None.
    """
    found = logits(task.support, solution.network, solution.with_axis(), held_out.pixels)
    own = hits(found, held_out.labels)
    joint = logits(task.support, solution.network, solution.with_axis(), held_out.pixels, "transductive")
    accuracy, interval = mean_and_interval(own)
    facts = {
        "accuracy": accuracy,
        "interval95": interval if math.isfinite(interval) else None,
        "before": solution.history[0].accuracy,
        "transductive": float(hits(joint, held_out.labels).mean()),
        "images": len(own),
    }
    return facts, own


def gap(own: Tensor, other: Tensor) -> tuple[float, float]:
    """How much more often ``own`` [N] hits than ``other`` on the same images, and half a 95 % interval, paired."""
    return mean_and_interval(own - other)


def size_of(model: Model) -> dict[str, int]:
    """ "weights", numbers that the shipped model stores, and "flops" of one image: multiplications and additions."""
    from torch.utils.flop_counter import FlopCounterMode

    image = model.facts["image"]
    pixels = torch.zeros((1, image["channels"], image["height"], image["width"]), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model.logits(pixels)
    return {"weights": sum(tensor.numel() for tensor in model.tensors.values()), "flops": counter.get_total_flops()}
