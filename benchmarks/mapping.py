"""Our supernet's parameters under the names and shapes of the plain PyTorch network in `benchmarks.peers.network`."""

from __future__ import annotations

import torch
from torch import Tensor

from metadarts.core.types import Params
from metadarts.networks import Network


def to_plain(network: Network, params: Params, ways: int) -> dict[str, Tensor]:
    """Shared parameters (no task axis) -> the plain network's, differentiably; the class vector becomes a layer."""
    plain: dict[str, Tensor] = {}
    for name, tensor in params.items():
        if name == "head.vector":
            plain["head.weight"] = tensor.expand(ways, -1)
        elif name == "head.bias":
            plain["head.bias"] = tensor.expand(ways)
        elif name.startswith("cells."):
            plain |= _cell_tensor(network, name, tensor)
        else:
            plain[name if name.startswith("alphas.") or ".norm" in name else f"{name}.weight"] = tensor
    return plain


def _cell_tensor(network: Network, name: str, tensor: Tensor) -> dict[str, Tensor]:
    _, cell, candidate, rest = name.split(".", 3)
    if candidate.startswith("preprocess"):
        return {f"{name}.weight": _convolution(rest, tensor)}
    spec = network.cells[int(cell)]
    stride = 2 if rest.startswith("stride2.") else 1
    part = rest.removeprefix("stride2.")
    numbers = [network.space.edge_index(*edge) for edge in spec.edges_at(candidate, stride)]
    return {
        f"cells.{cell}.edges.{number}.{candidate}.{part}.weight": _convolution(part, own)
        for number, own in zip(numbers, tensor.unbind(0), strict=True)
    }


def _convolution(part: str, tensor: Tensor) -> Tensor:
    """Depthwise [C, k, k] -> [C, 1, k, k]; a matrix [in, out] -> [out, in, 1, 1]."""
    return tensor.unsqueeze(1) if part.startswith("depthwise") else tensor.T[..., None, None]


def pull_back(network: Network, params: Params, ways: int, gradients: dict[str, Tensor]) -> Params:
    """The plain network's gradients, as gradients of ours: the transpose of `to_plain`."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}
    plain = to_plain(network, leaves, ways)
    if set(plain) != set(gradients):
        raise ValueError(f"names differ: {sorted(set(plain) ^ set(gradients))[:4]}")
    total = torch.stack([(plain[name] * gradient).sum() for name, gradient in gradients.items()]).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
