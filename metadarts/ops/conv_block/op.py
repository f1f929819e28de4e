"""Convolutional block: k x k convolution, batch norm with scale and bias, 2x2 max pooling; exact to second order.

The stage of the T-NAS stem, and of MAML's 4CONV network (there with a ReLU between blocks). The Function's outputs are
(y, normed, r, which), so that what its derivatives need is an input or an output (README.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.ops.choice import AUTO, choose
from metadarts.ops.convolution.op import convolution
from metadarts.ops.normalise.op import normalise

from . import reference

OFFERED = ("folded", "reference")


class Options(NamedTuple):
    """Whether x goes through a ReLU first; what is added to the variance."""

    rectify: bool
    eps: float


def conv_block(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: Tensor | None = None,
    rectify: bool = False,
    eps: float = 1e-5,
    implementation: str = AUTO,
) -> Tensor:
    """y = max_pool(scale * normalise(convolution(x)) + bias), with relu(x) in place of x where ``rectify``.

    Args:
        x: [T, N, H, W, C], H and W at least 2.
        weight: [T, O, C, k, k], k odd; zero padding "same".
        scale: [T, O].
        bias: [T, O].
        rows: [T, N], how much image n counts in task t's statistics, summing to 1 over n; None is 1/N each.
        rectify: whether x is taken through a ReLU.
        eps: added to the variance.
        implementation: "auto", "cpu", "folded" or "reference"; see `metadarts.ops.choice`.

    Returns:
        [T, N, H // 2, W // 2, O]
    """
    chosen = choose("conv_block", implementation, OFFERED, x, weight, scale, bias)
    if chosen == "reference":
        return reference.conv_block(x, weight, scale, bias, rows, rectify, eps)
    if chosen == "folded":
        return _folded(x, weight, scale, bias, rows, Options(rectify, eps))
    y: Tensor = _Block.apply(x, weight, scale, bias, _shares(x, rows), Options(rectify, eps))[0]
    return y


def _folded(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, rows: Tensor | None, options: Options) -> Tensor:
    """By torch's operators and ours, tasks folded into channels."""
    tasks = x.shape[0]
    x = x.permute(1, 2, 3, 0, 4).flatten(3)
    x = convolution(F.relu(x) if options.rectify else x, weight.flatten(0, 1), tasks)
    if rows is not None:
        rows = rows.T.to(torch.promote_types(x.dtype, torch.float32)).repeat_interleave(x.shape[-1] // tasks, dim=1)
    z = torch.addcmul(bias.flatten(), normalise(x, rows, options.eps), scale.flatten())
    pooled = F.max_pool2d(z.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return pooled.unflatten(-1, (tasks, -1)).permute(3, 0, 1, 2, 4)


def _shares(x: Tensor, rows: Tensor | None) -> Tensor:
    """[T, N]: the weight of each of an image's pixels."""
    tasks, images, height, width, _ = x.shape
    if rows is None:
        return x.new_full((tasks, images), 1.0 / (images * height * width))
    return (rows / (height * width)).to(x.dtype).contiguous()
