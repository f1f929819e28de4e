"""Sources of labelled images. Each is one module, whose ``SOURCE`` opens it, or several by name.

A source is opened by (place of its data, size=, channels=, progress=); see `metadarts.tasks.open_source`.
"""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect
from metadarts.tasks.source import Source

SOURCES: Variants[Callable[..., Source]] = collect(__name__, "SOURCE", "source")
