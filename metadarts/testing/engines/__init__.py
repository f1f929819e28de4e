"""Other ways to run the inner loop, to check `metadarts.inner.adapt` against. A module each, whose ``ENGINE`` it is.

They differ in how they loop, not in what they compute: all agree to rounding.
"""

from metadarts.core.variants import Variants, collect
from metadarts.inner import Engine

_OTHERS: Variants[Engine | None] = collect(__name__, "ENGINE", "engine")
ENGINES: Variants[Engine | None] = Variants("engine", {"batched": None, **_OTHERS})
"""By the name in a configuration. None is the inner loop's own, all tasks in one pass."""
