"""Where the alphas of a task start before the inner loop. Each is one module, whose ``ALPHAS`` creates it.

A start is a function (options by name) -> `AlphaStart`. Its parameters have the prefix ``start.`` and are meta-learned
with all others; the inner loop does not move them.
"""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._types import AlphaStart as AlphaStart
from ._types import AlphaStartContext as AlphaStartContext
from .shared import Shared

ALPHA_STARTS: Variants[Callable[..., AlphaStart]] = collect(__name__, "ALPHAS", "start of the alphas")
DEFAULT_START: AlphaStart = Shared()
