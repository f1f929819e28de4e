"""Modes that the surrounding program may have set in torch, and the modes that our code requires."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_torch() -> Iterator[None]:
    """New tensors are float32, gradients are recorded, inference mode and autocast are off: within the block, or within
    the function that this decorates. Afterwards all is as it was."""
    before = torch.get_default_dtype()
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as modes:
            for mode in (torch.inference_mode(False), torch.enable_grad()):
                modes.enter_context(mode)
            for device in devices:
                modes.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        torch.set_default_dtype(before)
