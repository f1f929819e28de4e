"""A second device that needs none: what was sent to "xpu" may not meet what stays on the CPU, as on a real one.

Tensors there are ordinary ones under another type. Torch's functions are watched: one that is given tensors of both
places fails, as torch would, and so does reading a tensor there as an array of numpy. What goes through no function of
torch, a compiled kernel for one, is not seen; networks have none for this device and take torch's own operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

NAME = "xpu"
PLACE = torch.device(NAME)
ACROSS = ("to", "cpu", "copy_", "__getitem__")  # an index may lie on the CPU


class There(Tensor):
    """A tensor on the made-up device."""


class Elsewhere(TorchFunctionMode):
    """While it is entered, the device "xpu" exists.

    Attributes:
        convolved: the places at which images were convolved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolved: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, There) for tensor in tensors)
        if func == Tensor.device.__get__:
            return PLACE if there else func(*args)
        if there and name == "numpy":
            raise TypeError("can't convert xpu device type tensor to numpy. Use Tensor.cpu() first")
        if there and name not in ACROSS and any(t.dim() and not isinstance(t, There) for t in tensors):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found two devices ({name})")
        if name.startswith("conv"):
            self.convolved.add(NAME if there else "cpu")
        if name in ("to", "cpu"):
            places = [arg for arg in args[1:] if isinstance(arg, str | torch.device)]
            args = tuple(arg for arg in args if not isinstance(arg, str | torch.device))
            asked = "cpu" if name == "cpu" else next(iter(places), kwargs.pop("device", None))
            found = func(args[0], *args[1:], **kwargs) if len(args) > 1 or kwargs else args[0]
        else:
            asked = kwargs.pop("device", None)
            found = func(*args, **kwargs)
        return found if asked is None else found.as_subclass(There if torch.device(asked) == PLACE else Tensor)
