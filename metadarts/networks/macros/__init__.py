"""Macro networks: the blocks around and between the cells. Each is one module, whose ``MACRO`` creates the structure.

A macro network is a function (image, style, options by name) -> `Structure`.
"""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect
from metadarts.networks.structure import Structure

MACROS: Variants[Callable[..., Structure]] = collect(__name__, "MACRO", "macro network")
