"""What is to be known of a task's solutions: accuracy with intervals, gaps, size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metadarts.export import Model
from metadarts.meta import interval95

from .learn import HeldOut
from .task import Solution, Task, hits, logits

ENOUGH = 20
"""Images from which on a gap has an interval."""


def wilson(right: float, count: int) -> tuple[float, float]:
    """A 95 % interval of a share of ``right`` among ``count`` images, which holds near 0 and 1 and for few images too.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    share, z = right / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def measured(task: Task, solution: Solution, held_out: HeldOut) -> tuple[dict[str, Any], Tensor]:
    """The accuracy of a solution on held-out images, under both policies of batch norm; and its hits [N].

    Returns:
        "accuracy" and "interval95", from and to (as shipped: the support set's statistics), "transductive" (those of
        the held-out images themselves), "before" (after no step), "images".
    """
    found = logits(task.support, solution.network, solution.with_axis(), held_out.pixels)
    own = hits(found, held_out.labels)
    joint = logits(task.support, solution.network, solution.with_axis(), held_out.pixels, "transductive")
    facts = {
        "accuracy": float(own.mean()),
        "interval95": wilson(float(own.sum()), len(own)),
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


def size_of(model: Model) -> dict[str, int]:
    """ "weights", numbers that the shipped model stores, and "flops" of one image: multiplications and additions."""
    from torch.utils.flop_counter import FlopCounterMode

    image = model.facts["image"]
    pixels = torch.zeros((1, image["channels"], image["height"], image["width"]), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model.logits(pixels)
    return {"weights": sum(tensor.numel() for tensor in model.tensors.values()), "flops": counter.get_total_flops()}
