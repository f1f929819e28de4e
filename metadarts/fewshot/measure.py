"""What is to be known of a task's solutions: accuracy with intervals, gaps, size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metadarts.export import ShippedModel
from metadarts.stats import interval95, wilson

from .learn import HeldOutImages
from .task import Solution, Task, hits, logits

ENOUGH = 20
"""Images from which on a gap has an interval."""


def measured(task: Task, solution: Solution, held_out: HeldOutImages) -> tuple[dict[str, Any], Tensor]:
    """The accuracy of a solution on held-out images, under both policies of batch norm; and its hits [N].

    Returns:
        "accuracy" and "interval95", from and to (as shipped: the support set's statistics), "transductive" (those of
        the held-out images themselves), "before" (after no step), "images".
    """
    found = logits(task.support, solution.network, solution.with_axis(), held_out.pixels)
    own = hits(found, held_out.labels)
    joint = logits(task.support, solution.network, solution.with_axis(), held_out.pixels, "transductive")
    share = wilson(float(own.sum()), len(own))
    facts = {
        "accuracy": float(own.mean()),
        "interval95": (share.low, share.high),
        "before": solution.history[0].accuracy,
        "transductive": float(hits(joint, held_out.labels).mean()),
        "images": len(own),
    }
    return facts, own


def gap(own: Tensor, other: Tensor) -> str:
    """How much more often ``own`` [N] hits than ``other`` on the same images, and half a 95 % interval, paired.

    Below `ENOUGH` images 1.96 standard errors say nothing, and the text has no interval.
    """
    apart = own - other
    text = f"{float(apart.mean()):+.1%}"
    return f"{text} ± {interval95(apart):.1%}" if len(apart) >= ENOUGH else text


def size_of(model: ShippedModel) -> dict[str, int]:
    """ "weights", numbers that the exported model stores, and "flops" of one image: multiplications and additions."""
    from torch.utils.flop_counter import FlopCounterMode

    image = model.facts["image"]
    pixels = torch.zeros((1, image["channels"], image["height"], image["width"]), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model.logits(pixels)
    return {"weights": sum(tensor.numel() for tensor in model.tensors.values()), "flops": counter.get_total_flops()}
