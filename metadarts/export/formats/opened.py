"""The common form of an opened model of any format."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metadarts.core.modes import plain_torch

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Opened:
    """An exported model that can predict.

    Args:
        format: a key of `SUFFIXES`.
        facts: its description.
        logits: uint8 pixels [N, C, H, W] -> [N, classes].
    """

    format: str
    facts: dict[str, Any]
    logits: Logits


def without_grad(module: Logits) -> Logits:
    """``module``, which keeps no graph of what it computes, whatever the program around it has set in torch."""

    def logits(pixels: Tensor) -> Tensor:
        with plain_torch(), torch.no_grad():
            return module(pixels)

    return logits


def example(image: Mapping[str, Any], count: int) -> Tensor:
    """Black images [count, C, H, W] of a model's form, for an exporter to follow."""
    return torch.zeros((count, image["channels"], image["height"], image["width"]), dtype=torch.uint8)


@contextmanager
def silent() -> Iterator[None]:
    """Remarks of the exporters are theirs; what they made is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
