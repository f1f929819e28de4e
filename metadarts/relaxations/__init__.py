"""Relaxations: from alphas to mixing weights. One module each, whose ``RELAXATION`` is a frozen dataclass of options."""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._types import Relaxation as Relaxation
from .softmax import Softmax as Softmax

RELAXATIONS: Variants[Callable[..., Relaxation]] = collect(__name__, "RELAXATION", "relaxation")
PLAIN: Relaxation = Softmax()
"""Where nothing else is said."""
