"""Reference engines of the inner loop, for checks of `metadarts.inner.adapt`. Each is one module with an ``ENGINE``.

They differ in how they loop, not in the result: all agree up to rounding.
"""

from metadarts.core.variants import Variants, collect
from metadarts.inner import Engine

_OTHERS: Variants[Engine | None] = collect(__name__, "ENGINE", "engine")
ENGINES: Variants[Engine | None] = Variants("engine", {"batched": None, **_OTHERS})
"""By the name in a configuration. None is the inner loop's own, all tasks in one pass."""
